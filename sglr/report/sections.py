"""What index.html says: its sections and their contents."""

from dataclasses import dataclass, field

from sglr.report.drawing import MANY_LINES, Plot
from sglr.report.flags import raised
from sglr.report.headline import gap_name
from sglr.report.table import Row, Table
from sglr.report.wording import plain, quoted

Tables = dict[str, Table]
Plots = dict[str, list[Plot]]


@dataclass(frozen=True)
class PageSection:
    """One part of the page. ``lead``: key sentences, each with what adds to it; ``facts``: names and values;
    ``folded`` opens on request: text or a table; ``calm``: there are no flags."""

    id: str
    title: str
    lead: dict[str, str] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    bullets: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    folded: dict[str, str | Table] = field(default_factory=dict)
    calm: bool = False

    @property
    def alarming(self) -> bool:
        """Whether it stands out."""
        return self.id == "flags" and not self.calm

    def __bool__(self) -> bool:
        return any((self.lead, self.bullets, self.plots, self.tables, self.facts, self.folded))


def sections(results: Row, tables: Tables, plots: Plots) -> list[PageSection]:
    """The parts of the page in order; those without content are dropped."""
    return [
        *_answer(results, tables),
        *_accuracies(results, tables, plots),
        *_images(tables, plots),
        *_labels(tables, plots),
        *_analyses(results, tables, plots),
        *_about(results, tables),
    ]


def _answer(results: Row, tables: Tables) -> list[PageSection]:
    """The result in words, what it was measured with, whether to doubt it, and all methods beside each other."""
    told = [results["headline"]["summary"]] if results["headline"]["summary"] else results["headline"]["verdicts"]
    verdicts = {verdict["sentence"]: verdict["accuracy"] for verdict in told}
    details, each = results["headline"]["details"], results["headline"]["each"]
    return [
        PageSection(
            "result", f"The {gap_name(results['headline']['attack'])}",
            lead=verdicts or {details[0]: ""}, text=details if verdicts else details[1:],
            folded={"Every method in words": "\n\n".join(each)} if each else {},
        ),
        PageSection("setting", "The setting", facts=results["outline"]),
        _flags(results),
        PageSection(
            "comparison", "Comparison",
            tables=[*_some(tables, "comparison"), *_some(tables, "published")],
            folded=_folded(tables, "seeds", "Every seed"),
        ),
    ]  # fmt: skip


def _accuracies(results: Row, tables: Tables, plots: Plots) -> list[PageSection]:
    """Accuracy over epochs, between methods, over the radius and by class."""
    gap = gap_name(results["headline"]["attack"])
    return [
        PageSection(
            "curves", "Learning curves",
            text=["Robust overfitting is training accuracy under attack that keeps rising while validation accuracy"
                  " under attack falls. Training batches are attacked as the method trains, at the weights of that"
                  " step, from which saved ones differ with averaging and AWP; validation images by PGD on the"
                  f" cross-entropy. Thin lines are seeds (no more than {MANY_LINES} in a figure, else none), thick ones"
                  " their mean; the band is the warm-up, a dotted line where a label policy begins."],
            plots=plots["curves"],
        ),
        PageSection(
            "gap", f"{gap.capitalize()}, differences and controls", text=[_controls(results)],
            plots=[*plots["gap"], *plots["differences"]], tables=_some(tables, "differences"),
            folded=_folded(tables, "paired", "Model against model (McNemar)"),
        ),
        PageSection(
            "radii", "Accuracy against the radius",
            text=["An example that is broken at one radius counts as broken at every larger one."],
            plots=plots["radii"],
        ),
        PageSection(
            "classes", "Class by class",
            text=["On the worst-case images of the first test examples, under all attacks (those run on fewer"
                  " examples, too), all seeds together: which classes hold, and what the others are mistaken for."
                  " Rows of a matrix are true classes, columns predicted ones."],
            plots=plots["classes"],
        ),
    ]  # fmt: skip


def _images(tables: Tables, plots: Plots) -> list[PageSection]:
    """Adversarial images: what they look like, and what they do to other models."""
    return [
        PageSection(
            "examples", "What the attacks do",
            text=["The first test examples, and the worst case that any attack found for the last model of the first"
                  " seed: the image, the predicted class, and the change, magnified: grey where nothing changed,"
                  " brighter and darker where there is more and less of a colour."],
            plots=plots["examples"],
        ),
        PageSection(
            "transfer", "Images made for another model",
            text=["A model with masked gradients can be broken by images crafted for another. Where that"
                  " happens more often than by its own attacks, a flag says so. Every image was scored again in a new"
                  " process, its range and distance measured. They are the worst cases under all attacks, those run on"
                  " fewer examples, too."],
            tables=_some(tables, "transfer"),
        ),
    ]  # fmt: skip


def _labels(tables: Tables, plots: Plots) -> list[PageSection]:
    """What methods make of wrong labels."""
    return [
        PageSection(
            "labels", "Effect on the labels",
            text=["Methods that refine labels correct wrong ones, and may corrupt right ones: that is their cost."
                  " Training follows them in part where r < 1, and beside the given labels with ensembling. In the"
                  " course of noisy examples' labels (the given one is wrong) thin lines are single examples of the"
                  " first seed, thick ones their mean."],
            plots=plots["labels"], tables=_some(tables, "labels"),
        ),
        PageSection(
            "memorisation", "Memorisation of wrong labels",
            text=["Training examples whose given label is wrong (noisy): a network that memorises predicts the"
                  " given label, one that generalises the true one. PGD moves images away from the given label, which"
                  " for noisy ones favours the true one: accuracy against it is no robust accuracy there."],
            plots=plots["memorisation"], tables=_some(tables, "memorisation"),
        ),
    ]  # fmt: skip


def _analyses(results: Row, tables: Tables, plots: Plots) -> list[PageSection]:
    """Gradients, information, calibration and sharpness, and their numbers."""
    notes = "\n\n".join(f"{key}: {note}" for key, note in results["notes"].items())
    return [
        PageSection(
            "gradients", "Gradient norms",
            text=["Norms of the gradient of the method's full loss in all weights, example by example, with that"
                  " epoch's targets, on images attacked away from the given label: large ones on noisy examples pull"
                  " towards their wrong labels. Softer targets alone make norms smaller: compare shares too."
                  f" {_CHECKPOINTS}"],
            plots=plots["gradients"],
        ),
        PageSection(
            "information", "Information over epochs",
            text=[f"Estimators, assumptions and pitfalls of every quantity: docs/analysis. {_CHECKPOINTS}"],
            plots=plots["information"],
        ),
        PageSection(
            "calibration", "Calibration",
            text=["Above the diagonal a model is right more often than it is confident, below it less often. Refined"
                  " labels are held against the true ones; labels that nothing refines are a point at confidence 1."],
            plots=plots["calibration"], tables=_some(tables, "calibration"),
        ),
        PageSection(
            "sharpness", "Sharpness",
            text=["The curvature of the cross-entropy with each method's own training targets, and that loss along one"
                  " random direction in the weights. Compare shapes, not heights: soft targets add their entropy."],
            plots=plots["sharpness"],
        ),
        PageSection(
            "analysis", "All analyses in numbers",
            folded=_folded(tables, "analysis", "Means over seeds")
            | _folded(tables, "analysis-seeds", "Every run, with intervals")
            | ({"Assumptions and omissions": notes} if notes else {}),
        ),
    ]  # fmt: skip


def _about(results: Row, tables: Tables) -> list[PageSection]:
    """What it cost, what to beware of, and what all of it was made from."""
    return [
        PageSection(
            "cost", "Cost",
            text=["Seconds and memory differ from machine to machine and are not on this page, so that identical"
                  " results give an identical file. “sglr results --cost” prints those of the last runs here;"
                  " MLflow has them as metrics (seconds/total, memory/peak_mib)."],
            tables=_some(tables, "cost"),
        ),
        PageSection("cautions", "Cautions", bullets=results["cautions"]),
        _data(results["data"]),
        _provenance(results),
    ]  # fmt: skip


def _controls(results: Row) -> str:
    """What a method should be compared with; the early-stopped baseline where there are rows for it."""
    baseline = quoted(results["experiment"]["baseline"])
    others = (
        f"Controls such as label smoothing, or {baseline} with the extra natural forward pass, become rows here when"
        " they are listed as methods."
    )
    if not any(row["quantity"] == "last_over_best" for row in results["comparisons"]):
        return others
    return (
        f"{baseline} can also be stopped at its best epoch, which takes no further training: “last − best of"
        f" {baseline}” is that control; “best − best” stops both. {others}"
    )


_CHECKPOINTS = (
    "Points are the weights training began with, kept epochs, best and last; thin lines are seeds, and a thick point is"
    " the mean over them, at the mean of their epochs."
)


def _flags(results: Row) -> PageSection:
    """The flags, or that there are none; what was checked in either case."""
    looked = "\n".join(results["checks"])
    if results["flags"]:
        title = "Sanity flags: read before trusting a number"
        return PageSection("flags", title, bullets=raised(results["flags"]), folded={"What was checked": looked})
    text = ["No check raised a flag. The absence of signs of masked gradients does not prove that there are none."]
    return PageSection("flags", "Sanity flags: none", text=text, folded={"What was checked": looked}, calm=True)


def _data(meta: Row) -> PageSection:
    facts = {key.replace("_", " "): plain(value) for key, value in meta.items() if key != "arrays"}
    arrays = {name: plain(value) for name, value in meta.get("arrays", {}).items()}
    listing = "\n".join(f"{name}: {value}" for name, value in arrays.items())
    return PageSection("data", "Data", facts=facts, folded={"Arrays and checksums": listing} if arrays else {})


def _provenance(results: Row) -> PageSection:
    import yaml

    found = results["provenance"]
    folded: dict[str, str | Table] = {
        "All params": yaml.safe_dump(found["params"], sort_keys=False, allow_unicode=True)
    }
    if found["weights"]:
        folded["MD5 of the trained weights"] = "\n".join(f"{name}: {md5}" for name, md5 in found["weights"].items())
    return PageSection(
        "provenance", "Provenance",
        text=["The commit that holds these results is not known while they are made: “git log -1 dvc.lock” names it."
              " Runs in MLflow are tagged with the commit they were started from (git_commit) and with the MD5 of their"
              " last weights (weights_md5), which stands below, too."],
        facts={**found["versions"], "SHA-256 of artifacts/data/meta.json": found["data_sha256"]}, folded=folded,
    )  # fmt: skip


def _some(tables: Tables, name: str) -> list[Table]:
    return [tables[name]] if name in tables else []


def _folded(tables: Tables, name: str, title: str) -> dict[str, str | Table]:
    return {title: tables[name]} if name in tables else {}
