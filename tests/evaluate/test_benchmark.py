"""The suite from folders to report, on clips of the embedded world."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.serve_subjects import add_subjects
from dreambooth3d.artifacts.clip import count_frames, read_clip, stream_clip, write_clip
from dreambooth3d.artifacts.subject import write_subject
from dreambooth3d.errors import ArtifactError, ConfigError, InputError
from dreambooth3d.evaluate.benchmark import score_benchmark
from dreambooth3d.evaluate.clip_scoring import Subjects, score_clip, spread
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.custombench import read_benchmark
from dreambooth3d.evaluate.hub_embedding import (
    HubModel,
    TextAligner,
    find_aligner,
    find_embedder,
)
from dreambooth3d.evaluate.instruments import Instruments
from dreambooth3d.evaluate.job import run_benchmark
from dreambooth3d.evaluate.subject_ruler import build_ruler
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.scenes import make_scene, make_subject, reference_cameras, render_scene
from dreambooth3d.scenes import render_view as render
from pipelines import evaluate
from tests.evaluate.test_hub_embedding import save_clip

SEEDS = {"first": 1_000_000, "second": 1_000_019}
CONFIG = BenchmarkConfig(frames=2, wrong_frames=1, hub=False, resamples=200)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, seed in SEEDS.items():
        subject = make_subject(seed)
        views = [Image.fromarray(render(subject, c, size=96).rgb) for c in reference_cameras(3)]
        write_subject(
            tmp_path / "subjects" / name,
            id=name,
            class_noun=subject.class_noun,
            images=views,
            references=views,
        )
        frames, _ = render_scene(make_scene(subject, seed, num_frames=3), size=96)
        write_clip(tmp_path / "clips" / f"{name}.mp4", frames, fps=8, metadata={})
    return tmp_path / "subjects", tmp_path / "clips"


def test_a_report_has_numbers_pictures_and_what_is_missing(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said: list[str] = []
    scored, unreadable = run_benchmark(CONFIG, *folders, tmp_path / "out", report=said.append)
    assert unreadable == ()
    assert [clip.subject for clip in scored] == ["first", "second"]
    data = json.loads((tmp_path / "out" / "report.json").read_text())["data"]
    means = data["means"]
    assert means["identity"]["low"] <= means["identity"]["mean"] <= means["identity"]["high"]
    assert means["identity"]["mean"] > means["identity_wrong_subjects"]["mean"]
    assert means["identity"]["num_values"] == 2
    skipped = {each["name"] for each in data["skipped"]}
    assert {"clip_i", "dino_i", "judge", "chamfer", "vbench_imaging_quality"} <= skipped
    assert not skipped & set(means)
    folder = next(iter((tmp_path / "out" / "scores").iterdir()))
    # A label and three references.
    assert Image.open(folder / "sheet.png").width > 160 + 3 * 128
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("3DreamBooth alone", "0.742", "Not measured", "place 1 of 2", "data:image/png"):
        assert words in page
    again: list[str] = []
    run_benchmark(CONFIG, *folders, tmp_path / "out", report=again.append)
    assert sum("scored before" in line for line in again) == 2
    assert not any("scored before" in line for line in said)


def score(subjects: Path, clips: Path, root: Path) -> list[str]:
    """Score without a tracking server; what was said."""
    said: list[str] = []
    benchmark = read_benchmark(subjects, clips)
    score_benchmark(CONFIG, benchmark, clips, root / "out", report=said.append)
    return said


def test_a_changed_clip_or_setting_is_scored_anew(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    subjects, clips = folders
    (clips / "second.mp4").unlink()
    score(subjects, clips, tmp_path)
    frames, _ = read_clip(clips / "first.mp4")
    write_clip(clips / "first.mp4", frames[::-1], fps=8, metadata={})
    said = score(subjects, clips, tmp_path)
    assert not any("scored before" in line for line in said)
    assert any("no clip shows: second" in line for line in said)
    assert len(list((tmp_path / "out" / "scores").iterdir())) == 2


def test_a_changed_prompt_is_scored_anew(folders: tuple[Path, Path], tmp_path: Path) -> None:
    subjects, clips = folders
    (clips / "second.mp4").unlink()
    score(subjects, clips, tmp_path)
    (clips / "first.json").write_text('{"prompt": "a thing at sea"}')
    assert not any("scored before" in line for line in score(subjects, clips, tmp_path))
    assert any("scored before" in line for line in score(subjects, clips, tmp_path))


def test_numbers_of_vbench_are_among_the_others(
    folders: tuple[Path, Path], vbench_python: Path, tmp_path: Path
) -> None:
    (folders[1] / "first.json").write_text('{"prompt": "a thing at sea"}')
    config = replace(CONFIG, vbench_python=str(vbench_python))
    benchmark, said = read_benchmark(*folders), list[str]()
    scored, means, _ = score_benchmark(
        config, benchmark, folders[1], tmp_path / "out", report=said.append
    )
    assert means["vbench_imaging_quality"].mean == 70.5
    assert scored[0].numbers.numbers["vbench_overall_consistency"] == 0.14
    assert "vbench_overall_consistency" not in scored[1].numbers.numbers
    data = json.loads((tmp_path / "out" / "report.json").read_text())["data"]
    assert data["clips"][1]["numbers"]["vbench_dynamic_degree"] == 1.0
    assert {"clip_t", "vbench_aesthetic_quality"} <= {each["name"] for each in data["skipped"]}
    page = (tmp_path / "out" / "report.html").read_text()
    ours = page[page.index("these clips") :]
    assert 0 < ours.index("70.5") < ours.index("0.14") < ours.index("</table>")
    assert "no text alignment of 1 clips" in page
    assert any("are of the package vbench 0.1.5" in line for line in said)


def test_frames_are_compared_with_the_prompt(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, _, tokenizer = save_clip(tmp_path / "hub")
    tokenizer.save_pretrained(tmp_path / "hub")
    wanted = HubModel(kind="clip_i", repository=str(tmp_path / "hub"))
    aligner = find_aligner(wanted, find_embedder(wanted))
    assert isinstance(aligner, TextAligner)
    subject = make_subject(SEEDS["first"])
    views = [Image.fromarray(render(subject, c, size=96).rgb) for c in reference_cameras(2)]
    subjects = Subjects(own=build_ruler(views), others={}, references=views)
    path, instruments = folders[1] / "first.mp4", Instruments(aligner=aligner)
    found = [
        score_clip(path, subjects, instruments, CONFIG, lambda *at: None, prompt=prompt)[0]
        for prompt in ("a mug", None)
    ]
    text, frames = aligner.embed_text("a mug"), read_clip(path)[0]
    expected = np.mean([aligner.align(frames[place], text) for place in (0, 2)])
    assert found[0].numbers["clip_t"] == pytest.approx(expected)
    assert "clip_t" not in found[1].numbers


def test_a_damaged_clip_is_named_and_what_was_scored_is_kept(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    subjects, clips = folders
    whole = (clips / "second.mp4").read_bytes()
    (clips / "second.mp4").write_bytes(whole[:200])
    said = score(subjects, clips, tmp_path)
    assert any("second.mp4 is not scored: " in line for line in said)
    note = "not scored, for they cannot be read: second.mp4"
    assert note in (tmp_path / "out" / "report.html").read_text()
    (clips / "second.mp4").write_bytes(whole)
    said = score(subjects, clips, tmp_path)
    assert sum("scored before" in line for line in said) == 1


def test_without_a_readable_clip_there_is_no_report(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    subjects, clips = folders
    for clip in clips.glob("*.mp4"):
        clip.write_bytes(b"no clip")
    with pytest.raises(ArtifactError, match=r"first\.mp4"):
        score(subjects, clips, tmp_path)


def test_a_clip_under_a_wrong_name_is_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    subjects, clips = folders
    (clips / "second.mp4").unlink()
    (clips / "first.mp4").rename(clips / "second.mp4")
    said = score(subjects, clips, tmp_path)
    assert any("second.mp4 looks more like first (0." in line for line in said)
    assert any("the means are over 1 subject:" in line for line in said)


def test_streaming_gives_the_same_frames(folders: tuple[Path, Path]) -> None:
    clip = folders[1] / "first.mp4"
    assert count_frames(clip) == 3
    assert (np.stack(list(stream_clip(clip))) == read_clip(clip)[0]).all()


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert spread(81, 3) == [0, 40, 80]
    assert spread(3, 5) == spread(3, 0) == [0, 1, 2]


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="must be set together"):
        BenchmarkConfig(judge_url="http://localhost/v1")
    with pytest.raises(ConfigError, match="wrong_frames"):
        BenchmarkConfig(wrong_frames=0)


def test_the_command_shows_its_plan(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects, clips = map(str, folders)
    given = ["--suite", "custombench", "--subjects", subjects, "--clips", clips, "--dry-run"]
    assert evaluate.main([*given, "--set", "frames=9", "--seed", "4"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["settings"]["frames"], plan["settings"]["seed"]) == (9, 4)
    assert list(plan["plan"]["clips"].values()) == ["first", "second"]
    assert list(plan["plan"]["prompts"].values()) == [None, None]


def test_the_command_plans_the_clips_of_the_subjects_prompts(
    folders: tuple[Path, Path], miniature: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    subjects = folders[0]
    add_subjects(tmp_path, 1, seed=1, backbone=load_backbone(str(miniature)))
    adapters = tmp_path / "personalize" / "proof" / "adapters"
    (adapters / "subject0").rename(adapters / "first")
    given = [
        "--suite", "custombench", "--subjects", str(subjects), "--clips", str(tmp_path / "made"),
        "--adapters", str(adapters), "--dry-run", "--generate",
        "--set-clips", f"backbone={miniature}", "--set-clips", "seed=5",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"no prompts for first; write them into prompt\.txt"):
        evaluate.main(given)
    (subjects / "first" / "prompt.txt").write_text("a sks mug\na video of a [sks mug] at sea\n")
    assert evaluate.main(given) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["seed"] == 5
    assert [each["prompt"] for each in plan["plan"]["inputs"]] == [
        "a sks mug", "a video of a [sks mug] at sea",
    ]  # fmt: skip
    (adapters / "first").rename(adapters / "other")
    with pytest.raises(InputError, match=r"subjects \(first, second\), got other; personalize"):
        evaluate.main(given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "custombench"], "must come with --subjects DIR and --clips DIR"),
        (["--subjects", "x"], "--subjects, --generate and --set-clips must come"),
        (
            ["--suite", "custombench", "--subjects", "x", "--clips", "y", "--rows", "z"],
            "must come without --rows",
        ),
        (["--suite", "backbone", "--subjects", "x"], "must come with --seed, --rows"),
        (["--suite", "backbone", "--generate"], "must come with --seed, --rows"),
        (["--generate"], "--generate and --set-clips must come with"),
    ],
)
def test_options_that_do_nothing_are_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate.main(arguments)


def test_pictures_are_of_scored_frames(folders: tuple[Path, Path]) -> None:
    subject = make_subject(SEEDS["first"])
    views = [Image.fromarray(render(subject, c, size=96).rgb) for c in reference_cameras(2)]
    subjects = Subjects(own=build_ruler(views), others={}, references=views)
    seen: list[tuple[int, int]] = []
    clip = folders[1] / "first.mp4"
    config = BenchmarkConfig(frames=2, hub=False)
    numbers, pictures = score_clip(
        clip, subjects, Instruments(), config, lambda *at: seen.append(at)
    )
    assert numbers.frames == (0, 2)
    assert len(pictures.frames) == len(pictures.cutouts) == len(numbers.identity) == 2
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert numbers.wrong == {}


def test_scores_that_were_damaged_are_made_again(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    first = score(*folders, tmp_path)
    one, other = sorted((tmp_path / "out" / "scores").iterdir())
    (one / "numbers.json").write_text("{}")
    (other / "sheet.png").write_bytes(b"no picture")
    again = score(*folders, tmp_path)
    assert not any("scored before" in line for line in again)
    assert [line for line in again if "identity 0." in line][-1] == [
        line for line in first if "identity 0." in line
    ][-1]


def test_a_view_that_moves_to_another_subject_is_scored_anew(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    subjects, clips = folders
    score(subjects, clips, tmp_path)
    views = subjects / "first" / "references"
    (views / "003.png").rename(subjects / "second" / "references" / "000.png")
    assert not any("scored before" in line for line in score(subjects, clips, tmp_path))
