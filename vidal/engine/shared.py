"""Objects of which a whole run has one: a stage gives one, every worker's copy of the stage gets to call it.

In one process it is called as it is; a pool's processes reach it in the driver through a socket; on Ray it is an
actor. Its methods must not block, as one thread or one actor answers everybody.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from vidal.errors import MachineError
from vidal.stage import Direct


class SocketHost:
    """Holds objects in the driver and answers the processes of its pool."""

    def __init__(self, objects: Mapping[str, object]) -> None:
        self._objects = {name: Direct(target) for name, target in objects.items()}
        # The folder is the user's alone, and a caller has to know the key besides.
        self._folder = tempfile.mkdtemp(prefix="vidal-shared-")
        self._key = secrets.token_bytes(32)
        self._listener = Listener(f"{self._folder}/socket", family="AF_UNIX", authkey=self._key)
        self._is_closed = False
        threading.Thread(target=self._accept, daemon=True).start()
        self.proxies = {name: SocketProxy(str(self._listener.address), self._key, name) for name in objects}
        """What the processes of the pool reach the objects by."""

    def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except Exception:
                # A caller that knows no key, or the host's own end.
                if self._is_closed:
                    return
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                name, method, arguments = connection.recv()
                try:
                    connection.send((True, self._objects[name].call(method, *arguments)))
                except Exception as error:
                    # As text: the asking process need not know the class.
                    connection.send((False, f"{type(error).__name__}: {error}"))


class SocketProxy:
    """A pool process's proxy of an object in the driver; each thread has a connection of its own."""

    def __init__(self, address: str, key: bytes, name: str) -> None:
        self._address, self._key, self._name = address, key, name
        self._local = threading.local()

    def __reduce__(self) -> tuple[object, ...]:
        # Connections stay with their process.
        return SocketProxy, (self._address, self._key, self._name)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; raises `MachineError` where the method raises, or the driver is gone."""
        try:
            # Of each thread its own, as an answer on a shared one might go to another thread's question.
            if not hasattr(self._local, "connection"):
                self._local.connection = Client(self._address, family="AF_UNIX", authkey=self._key)
            self._local.connection.send((self._name, method, arguments))
            is_well, answer = self._local.connection.recv()
        except (OSError, EOFError) as error:
            raise MachineError(f"the run's driver does not answer: {error}") from error
        if not is_well:
            raise MachineError(f"{self._name}.{method}: {answer}")
        return answer


class ActorProxy:
    """A proxy of an object that lives in a Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def call(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(self._actor.call.remote(method, *arguments))
