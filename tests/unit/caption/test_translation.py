"""Captions in English of clips whose title is in another language: word by word, or refused."""

from __future__ import annotations

import pytest

from vidal.caption.guard import check
from vidal.caption.translation import LANGUAGES, gloss, language_of
from vidal.caption.views import View


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Cómo podar un limonero en otoño", "es"),
        ("Igel trinkt Wasser in unserem Garten", "de"),
        ("Randonnée de nuit sous les étoiles", "fr"),
        ("Il mio gatto dorme nella scatola", "it"),
        ("Meu avô toca sanfona na varanda", "pt"),
        ("a man on a train", None),
        ("La Paz street food tour", None),
        ("Die Hard in 60 seconds", None),
        ("🎺🎺", None),
    ],
)
def test_a_language_is_known_by_its_words(text: str, language: str | None) -> None:
    assert language_of(text) == language
    assert language in (None, *LANGUAGES)


@pytest.mark.parametrize(
    ("text", "language", "caption", "english"),
    [
        ("Bushaltestelle im Schnee", "de", (), "bus stop snow"),
        ("Dachboden", "de", (), "roof floor"),
        ("todos los días", "es", (), "every day"),
        ("une vieille voiture", "fr", ("car",), "old car"),
        ("corre por la playa", "es", ("run",), "runs by beach"),
        ("volcan", "fr", ("volcano",), "volcano"),
    ],
)
def test_words_are_glossed_toward_the_caption(text: str, language: str, caption: tuple[str, ...], english: str) -> None:
    assert gloss(text, language, caption).text == english


@pytest.mark.parametrize(
    ("title", "caption", "is_good"),
    [
        ("Gatito rescatado de una alcantarilla por los bomberos", "Firefighters rescue a kitten from a sewer.", True),
        ("Gatito rescatado de una alcantarilla por los bomberos", "A kitten rescues firefighters from a sewer.", False),
        ("Gatito rescatado de una alcantarilla por los bomberos", "Firefighters rescue a puppy from a sewer.", False),
        ("Un chien sauve un enfant de la noyade", "A dog saves a child from drowning.", True),
        ("Un chien sauve un enfant de la noyade", "A child saves a dog from drowning.", False),
        ("Recette de soupe à la citrouille sans lait", "A pumpkin soup recipe without milk.", True),
        ("Recette de soupe à la citrouille sans lait", "A pumpkin soup recipe with milk.", False),
        ("Radtour durch die Alpen im Sommer", "A bike tour through the Alps in summer.", True),
        ("Radtour durch die Alpen im Sommer", "A bike tour through the Alps in winter.", False),
        ("Tramonto sul lago con la barca a vela", "A sunset on the lake with a sailboat.", True),
        ("Tramonto sul lago con la barca a vela", "A sunrise on the lake with a sailboat.", False),
        ("Bambus pflanzen: so wächst er nicht im Garten", "Bamboo does not grow in the garden.", True),
        ("Bambus pflanzen: so wächst er nicht im Garten", "Bamboo grows in the garden.", False),
        ("Menina de 8 anos aprende a surfar", "An eight-year-old girl learns to surf.", True),
        ("Menina de 8 anos aprende a surfar", "A five-year-old girl learns to surf.", False),
    ],
)
def test_a_translation_is_held_to_the_title(title: str, caption: str, is_good: bool) -> None:
    assert (check(caption, [View(name="title", text=title, quoted=True)]) is None) is is_good
