"""The stages on a real Ray, one after the other, on a miniature backbone."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset
from mlflow import MlflowClient
from PIL import Image

from dreambooth3d.artifacts.adapter import load_adapter
from dreambooth3d.artifacts.catalogue import read_subjects_csv
from dreambooth3d.artifacts.key import latest
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.generate import job as generate
from dreambooth3d.generate.config import GenerateConfig
from dreambooth3d.model.lora import idle_names
from dreambooth3d.pairs import job as pairs
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.personalize import job as personalize
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.pretrain import job as pretrain
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.runtime.session import ray_session

pytestmark = pytest.mark.ray
PAIRS = PairsConfig(samples=20, samples_per_shard=8, size=32)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def corpus(runs: Path) -> Path:
    pairs.run(PAIRS, runs / "pairs")
    return latest(runs / "pairs", what="pairs", made_by="x")


@pytest.fixture(scope="module")
def adapter(runs: Path, corpus: Path, miniature: Path) -> Path:
    config = PretrainConfig(backbone=str(miniature), steps=6, batch_size=4, lr=1e-2, rank=4)
    pretrain.run(config, corpus, runs / "pretrain")
    return latest(runs / "pretrain", what="3Dapter", made_by="x")


@pytest.fixture(scope="module")
def table(runs: Path) -> Path:
    rows = ["subject,class_noun,images,steps"]
    for seed in (1_000_050, 1_000_051, 1_000_052):
        subject = photograph(runs / f"s{seed}", seed, id=f"s{seed}", num_images=3, size=32)
        rows.append(f"{subject.id},{subject.class_noun},{subject.id}/images,")
    (runs / "subjects.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return runs / "subjects.csv"


def test_pairs_are_a_corpus_that_webdataset_reads(corpus: Path) -> None:
    found = PairCorpus.open(corpus, verify=True)
    assert len(found) == 20
    shards = sorted(str(p) for p in corpus.glob("*.tar"))
    assert len(shards) == 3
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [s["__key__"] for s in samples] == list(found.sample_keys)
    assert samples[0]["reference.png"].size == samples[0]["target.jpg"].size == (32, 32)


def test_pairs_are_the_same_bytes_again_and_for_other_worker_counts(
    corpus: Path, tmp_path: Path
) -> None:
    pairs.run(PairsConfig(samples=20, samples_per_shard=8, size=32, workers=1), tmp_path)
    again = latest(tmp_path, what="pairs", made_by="x")
    assert again.name == corpus.name
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in corpus.iterdir()
    }


def test_the_same_key_does_nothing_and_says_so(runs: Path, corpus: Path) -> None:
    said: list[str] = []
    before = {p: p.stat().st_mtime_ns for p in corpus.iterdir()}
    pairs.run(PAIRS, runs / "pairs", report=said.append)
    assert said == [f"pairs {corpus.name}: already built, nothing to do"]
    assert before == {p: p.stat().st_mtime_ns for p in corpus.iterdir()}


def test_pretraining_publishes_an_adapter_with_its_lineage(
    runs: Path, corpus: Path, adapter: Path, miniature: Path
) -> None:
    found = load_adapter(adapter)
    assert found.card.kind == "3dapter"
    assert corpus.name in found.card.parents
    moved = [t for n, t in found.weights["reference"].items() if "lora_B" in n and t.any()]
    # q, out and MLP of the last block cannot reach the output; everything else has learned.
    assert len(moved) == 1 + 2 * 6 - len(idle_names(2, "reference"))
    said: list[str] = []
    config = PretrainConfig(backbone=str(miniature), steps=6, batch_size=4, lr=1e-2, rank=4)
    pretrain.run(config, corpus, runs / "pretrain", report=said.append)
    assert said == [f"pretrain {adapter.name}: already trained, nothing to do"]


def test_checkpoints_are_judged_on_held_out_subjects(tmp_path: Path, miniature: Path) -> None:
    pairs.run(replace(PAIRS, held_out_share=0.4), tmp_path / "pairs")
    corpus = latest(tmp_path / "pairs", what="pairs", made_by="x")
    said: list[str] = []
    config = PretrainConfig(
        backbone=str(miniature), steps=4, batch_size=2, lr=1e-2, rank=4, save_every=2,
        strategy="single",
    )  # fmt: skip
    pretrain.run(config, corpus, tmp_path / "pretrain", report=said.append)
    final = latest(tmp_path / "pretrain", what="3Dapter", made_by="x")
    found = json.loads((final / "curve.json").read_text())["validations"]
    assert [row["step"] for row in found] == [2, 4]
    assert found[0]["own"] != found[1]["own"]
    assert sorted(p.name for p in (final / "held_out").iterdir()) == [
        "step-000002.png",
        "step-000004.png",
    ]
    assert any("held-out at step 4: loss" in line for line in said)


def test_subjects_train_side_by_side_and_a_broken_one_hurts_nobody(
    runs: Path, adapter: Path, table: Path, miniature: Path
) -> None:
    config = PersonalizeConfig(backbone=str(miniature), steps=4, rank=4, lr=1e-2)
    subjects = read_subjects_csv(table).subjects
    broken = subjects[1].images[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    _, outcomes = personalize.run(config, subjects, adapter, runs / "personalize")
    assert [o.status for o in outcomes] == ["trained", "failed", "trained"]
    assert broken.name in outcomes[1].error
    batch = latest(runs / "personalize", what="batch", made_by="x")
    assert sorted(p.name for p in (batch / "adapters").iterdir()) == [
        subjects[0].id, subjects[2].id,
    ]  # fmt: skip

    broken.write_bytes(whole)
    said: list[str] = []
    _, outcomes = personalize.run(
        config, subjects, adapter, runs / "personalize", report=said.append
    )
    assert [o.status for o in outcomes] == ["kept", "trained", "kept"]
    assert sum("nothing to do" in line for line in said) == 2
    batch = latest(runs / "personalize", what="batch", made_by="x")
    with (batch / "results.csv").open(encoding="utf-8") as file:
        assert [row["subject"] for row in csv.DictReader(file)] == [s.id for s in subjects]


def test_a_damaged_adapter_is_made_again_the_same(
    runs: Path, adapter: Path, table: Path, miniature: Path
) -> None:
    config = PersonalizeConfig(backbone=str(miniature), steps=4, rank=4, lr=1e-2)
    subjects = read_subjects_csv(table).subjects
    batch = latest(runs / "personalize", what="batch", made_by="x")
    path = batch / "adapters" / subjects[0].id / "subject.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said: list[str] = []
    _, outcomes = personalize.run(
        config, subjects, adapter, runs / "personalize", report=said.append
    )
    assert [o.status for o in outcomes] == ["trained", "kept", "kept"]
    assert any("damaged" in line and "subject.safetensors" in line for line in said)
    # Alone, on one thread, as in the batch: the same bytes.
    assert path.read_bytes() == whole


def test_mlflow_holds_runs_curves_and_registered_adapters(runs: Path, adapter: Path) -> None:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    found = client.search_experiments()
    names = {e.name: e.experiment_id for e in found}
    children = client.search_runs([names["dreambooth3d-personalize"]], "tags.subject != ''")
    assert len(children) == 4  # three adapters and one failure
    model = client.get_model_version_by_alias("dreambooth3d-s1000050", "serving")
    run = client.get_run(model.run_id)
    assert len(client.get_metric_history(model.run_id, "loss")) == 4
    assert run.data.tags["artifact_key"]
    assert client.get_model_version_by_alias("dreambooth3d-3dapter", "serving").version


def test_clips_come_from_adapters_and_are_kept(runs: Path, adapter: Path, miniature: Path) -> None:
    batch = latest(runs / "personalize", what="batch", made_by="x")
    folder = next((batch / "adapters").iterdir())
    config = GenerateConfig(backbone=str(miniature), steps=2, num_frames=5)
    orders = [(folder, "a video of a thing"), (None, "a video of a red car")]
    paths = generate.run(config, orders, runs / "clips")
    sidecar = json.loads(paths[0].with_name(paths[0].name + ".json").read_text())
    assert sidecar["subject"] == folder.name
    assert sidecar["adapter_sha256"] == load_adapter(folder).card.weights_sha256
    said: list[str] = []
    assert generate.run(config, orders, runs / "clips", report=said.append) == paths
    assert all("nothing to do" in line for line in said)


def test_adapters_hold_their_views(runs: Path, adapter: Path, table: Path) -> None:
    batch = latest(runs / "personalize", what="batch", made_by="x")
    folder = next((batch / "adapters").iterdir())
    found = load_adapter(folder)
    assert len(found.references) == found.card.num_views == 4
    assert isinstance(found.references[0], Image.Image)
