"""A draft of the public summary of training content that Article 53(1)(d) of the EU's AI Act asks of providers.

The sections are those of the European Commission's template of July 2025. What a manifest says is filled in; what only
the model's provider knows is marked, and stays marked until somebody writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vidal.dataset.dataset import Dataset
from vidal.export.document import Documents, claimed, json_text, write_all
from vidal.export.facts import LOCAL, Facts, Tallies, ranked
from vidal.export.licences import ledger_of
from vidal.export.markdown import escaped, table

TO_FILL_IN = "TO BE FILLED IN BY THE PROVIDER"
HOSTS_MIN = 20
"""Hosts on the page at least; beyond, it has the tenth with the most bytes, as the template asks. The JSON has all."""

OPT_OUTS = ("robots", "noai", "removed")
"""Reasons of clips that were left alone because somebody reserved or withdrew them."""

_SECTIONS = {
    "1": "General information",
    "1.1": "Provider identification",
    "1.2": "Model identification",
    "1.3": "Modalities, overall training data size and other characteristics",
    "2": "List of data sources",
    "2.1": "Publicly available datasets",
    "2.2": "Private non-publicly available datasets obtained from third parties",
    "2.3": "Data crawled and scraped from online sources",
    "2.4": "User data",
    "2.5": "Synthetic data",
    "2.6": "Other sources of data",
    "3": "Data processing aspects",
    "3.1": "Respect of reservation of rights from text and data mining exception or limitation",
    "3.2": "Removal of illegal content",
    "3.3": "Other information",
}
_BY_PROVIDER = {
    "1.1": ("Provider name and contact details", "Authorised representative name and contact details"),
    "1.2": ("Versioned model names", "Model dependencies", "Date of placement on the Union market"),
    "1.3": ("Training data of other datasets than this one", "Whether data collection goes on after this date"),
    "2.1": ("Publicly available datasets used besides this one",),
    "2.2": ("Datasets licensed by rightsholders or their representatives", "Other private datasets of third parties"),
    "2.3": ("Purposes of the crawlers", "Description of the content and of the kinds of sources"),
    "2.4": ("User data, of the model and of other services",),
    "2.5": ("Other models' synthetic data",),
    "2.6": ("Other sources",),
    "3.1": ("Signatory of the Code of Practice with commitments on reservations of rights", "Further measures"),
    "3.2": ("Measures to avoid or remove illegal content",),
    "3.3": ("Other information (optional)",),
}
_HEAD = """# Public summary of training content: {name}

A draft from the manifest of one dataset, in the sections of the European Commission's template of July 2025 for
Article 53(1)(d) of Regulation (EU) 2024/1689. It is no legal advice. **{todo}** marks what
a manifest cannot answer; a model trained on more than this dataset needs the summaries of all of it. Dates and licences
are as the sources state them, and languages of titles and speech as models detect them.
"""


def write_summary(dataset: Dataset, out: str, where: str | None, selected: Collection[str] | None) -> Documents:
    """Write ``training-summary.json`` and ``.md`` of the kept clips, or of those of them that are selected."""
    storage = claimed(dataset, out, "training-summary", where)
    facts = Facts.of(dataset, selected)
    said = answers(dataset, facts)
    document = {
        "dataset": dataset.info.name,
        "fingerprint": dataset.info.fingerprint,
        "revision": dataset.number,
        "where": where,
        "template": "European Commission, July 2025, Article 53(1)(d) of Regulation (EU) 2024/1689",
        "sections": [
            {"number": number, "title": title, "from_manifest": said.get(number, {}),
             "to_fill_in": dict.fromkeys(_BY_PROVIDER.get(number, ()))}
            for number, title in _SECTIONS.items()
        ],
    }  # fmt: skip
    files = {"training-summary.json": json_text(document), "training-summary.md": page(dataset.info.name, said)}
    return write_all(storage, files, facts.all.clips)


def answers(dataset: Dataset, facts: Facts) -> dict[str, dict[str, Any]]:
    """Return what the manifests say under each section: a text, a number, a list, or groups with their tallies."""
    crawled = {host: tally for host, tally in facts.hosts.items() if host != LOCAL}
    others = {reason: clips for reason, clips in sorted(facts.outcomes.items()) if reason not in ("kept", *OPT_OUTS)}
    said: dict[str, dict[str, Any]] = {
        "1.3": {
            "Modalities": sorted({*facts.layers, "text"}),
            "Clips": facts.all.clips,
            "Hours of video": round(facts.all.duration_s / 3600, 4),
            "Hours of audio": round(facts.audio_s / 3600, 4),
            "Bytes of the source files": facts.all.source_bytes,
            "Latest date of acquisition": facts.crawled.last or None,
            "First and last date of publication": facts.uploaded.as_json(),
            "Languages of titles": _groups(facts.title_languages),
            "Languages of speech": _groups(facts.speech_languages),
            "Licences": ledger_of(facts),
        },
        "2.3": {"Clips from online sources": sum(tally.clips for tally in crawled.values())},
        "2.5": {
            "Layers made by models": _groups(facts.synthetic_layers),
            "Models behind layers and texts": {name: sorted(counts) for name, counts in sorted(facts.models.items())},
        },
        "2.6": {"Clips from local files": facts.all.clips - sum(tally.clips for tally in crawled.values())},
        "3.1": {"Candidates left out by reservation or removal": {k: facts.outcomes[k] for k in OPT_OUTS}},
        "3.2": {"Candidates rejected or failed for other reasons": others},
    }
    if crawled:
        said["2.3"] |= {
            "Crawler": f"the fetch stage of {dataset.info.created_by}",
            "Behaviour": _behaviour(dataset),
            "First and last date of collection": facts.crawled.as_json(),
            "Platforms, by size": _groups(facts.platforms, "source_bytes"),
            "Hosts, by size": _groups(crawled, "source_bytes"),
        }
    return said


def page(name: str, said: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the draft as Markdown; of the hosts, the largest tenth and at least `HOSTS_MIN`."""
    parts = [_HEAD.format(name=escaped(name), todo=TO_FILL_IN)]
    for number, title in _SECTIONS.items():
        level = "###" if "." in number else "##"
        parts.append(f"\n{level} {number} {title}\n")
        blocks = [_block(label, value) for label, value in said.get(number, {}).items()]
        blocks += [f"- {label}: **{TO_FILL_IN}**\n" for label in _BY_PROVIDER.get(number, ())]
        # A list needs an empty line around it, and so does a table.
        for k, block in enumerate(blocks):
            parts.append(block if k and block[0] == blocks[k - 1][0] == "-" else f"\n{block}")
    return "".join(parts)


def _block(label: str, value: Any) -> str:
    if value is None or value in ([], {}):
        return f"- {label}: not stated\n"
    if isinstance(value, list) and isinstance(value[0], dict):
        cut = max(HOSTS_MIN, -(-len(value) // 10)) if label.startswith("Hosts") else len(value)
        heads = [name for name in value[0] if name not in ("name", "url")]
        body = table(heads, ([escaped(str(group[name])) for name in heads] for group in value[:cut]))
        return f"{label}{f' ({cut} of {len(value)})' if cut < len(value) else ''}:\n\n{body}"
    if isinstance(value, dict):
        value = [f"{key}: {', '.join(v) if isinstance(v, list) else v}" for key, v in value.items()]
    text = "; ".join(escaped(str(v), 1000) for v in value) if isinstance(value, list) else escaped(str(value), 1000)
    return f"- {label}: {text}\n"


def _groups(tallies: Tallies, by: str = "clips") -> list[dict[str, Any]]:
    return [{"group": name, **tally.as_json()} for name, tally in ranked(tallies, by)]


def _behaviour(dataset: Dataset) -> str:
    """What the recipe's settings say of the crawl, those that go around a limit included."""
    stages = dataset.info.recipe.get("stages", [])
    recorded = next((stage["settings"] for stage in stages if stage.get("name") == "fetch"), None)
    if recorded is None:
        return "files as the list gave them; no fetch stage in the recipe"
    # The resolved recipe leaves out what changes no byte of the output, such as a browser to imitate.
    # A stage without settings is its name alone.
    given = [
        stage["fetch"] for stage in dataset.info.definition.get("stages", []) if "fetch" in stage and stage != "fetch"
    ]
    settings = {**recorded, **(given[0] or {} if given else {})}
    around = [
        name for name in ("cookies", "proxy", "po_token", "javascript", "impersonate")
        if f"fetch.{name}" in dataset.info.secrets or settings.get(name) not in (None, "", "off")
    ]  # fmt: skip
    return (
        f"robots.txt and tdmrep.json of plain downloads and pages {'' if settings.get('robots') else 'not '}respected; "
        f"opt-outs heeded: {', '.join(settings.get('noai') or ()) or 'none'}; "
        f"settings for access: {', '.join(around) or 'none'}"
    )
