"""The responsible-AI fields of Croissant that a manifest can answer, and those that a person has to."""

from __future__ import annotations

from typing import Any

from vidal.dataset.dataset import Dataset
from vidal.export.facts import LOCAL, Facts, Tallies, ranked

TO_FILL_IN = "TO BE FILLED IN: "
_GROUPS_MAX = 20


def responsible_ai(dataset: Dataset, facts: Facts) -> dict[str, Any]:
    """Return the ``rai:`` properties of a dataset."""
    stages = [stage["name"] for stage in dataset.info.recipe.get("stages", ())]
    left_out = {reason: clips for reason, clips in sorted(facts.outcomes.items()) if reason != "kept"}
    models = {name: sorted(counts) for name, counts in sorted(facts.models.items())}
    said = {
        "rai:dataCollection": f"{facts.outcomes.total()} candidates of the recipe's source, of which "
        f"{facts.all.clips} were kept ({facts.all.duration_s / 3600:.2f} h). Hosts: {_named(facts.hosts)}.",
        "rai:dataCollectionType": ["Existing datasets"] if set(facts.hosts) == {LOCAL} else ["Web Scraping"],
        "rai:dataCollectionTimeframe": facts.crawled.as_json(),
        "rai:dataCollectionMissingData": "Candidates that were not kept, by reason: "
        + (", ".join(f"{reason} {clips}" for reason, clips in left_out.items()) or "none"),
        "rai:dataPreprocessingProtocol": [f"Stages in this order: {', '.join(stages)}."],
        "rai:machineAnnotationTools": [f"{name}: {', '.join(names)}" for name, names in models.items()],
        "rai:dataAnnotationProtocol": "Texts and scores are machine-made; the manifest names their models.",
        "rai:dataLimitations": [
            f"Layers made by models, not by sensors: {_named(facts.synthetic_layers)}.",
            f"Licences as the sources state them, unchecked: {_named(facts.licences)}.",
        ],
        "rai:dataBiases": [
            f"Clips by language of the title, as detected: {_named(facts.title_languages)}.",
            f"Clips by language of the speech, as detected: {_named(facts.speech_languages)}.",
            f"{TO_FILL_IN}biases of the search terms or lists that the candidates come from.",
        ],
        "rai:personalSensitiveInformation": [
            "Titles, uploaders' names, faces and voices of persons may be in the data; vidal does not assess them.",
            f"{TO_FILL_IN}the assessment.",
        ],
        "rai:dataUseCases": [f"{TO_FILL_IN}uses that were validated, and uses to avoid."],
        "rai:dataSocialImpact": f"{TO_FILL_IN}consequences for those who are in the data.",
        "rai:dataReleaseMaintenancePlan": f"{TO_FILL_IN}who answers requests for removal, for `vidal remove`.",
    }
    return {name: value for name, value in said.items() if value}


def _named(tallies: Tallies) -> str:
    """The largest groups with their clips."""
    groups = [f"{name} {tally.clips}" for name, tally in ranked(tallies)]
    rest = f", and {len(groups) - _GROUPS_MAX} more" if len(groups) > _GROUPS_MAX else ""
    return ", ".join(groups[:_GROUPS_MAX]) + rest or "none"
