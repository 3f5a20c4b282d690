"""The evaluation as a whole, on a random model and on answers that are known to be right or wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unclip.data.decoded_cache import DecodedCache
from unclip.data.shapes import Shapes
from unclip.evaluate.ablations import compare
from unclip.evaluate.asked import Asked, share_evenly
from unclip.evaluate.captions_followed import captions_followed
from unclip.evaluate.config import EvaluationConfig
from unclip.evaluate.evaluation import Drawn, Evaluation
from unclip.evaluate.features import Encoder
from unclip.evaluate.metrics import followed_by_group, memorisation_by_set, set_distances, thumbnails
from unclip.evaluate.pictures import draw_pictures
from unclip.evaluate.questions import Questions
from unclip.evaluate.report import evaluate, table
from unclip.images import from_uint8, read_provenance
from unclip.stages.sampling import sampling


@pytest.fixture(scope="module")
def evaluation(model, judge, config, cache) -> Evaluation:
    return Evaluation(model, config(), judge=judge, cache=cache)


@pytest.fixture(scope="module")
def report(evaluation):
    return evaluate(evaluation, ["priors"])


def test_report_records_what_was_measured(report, evaluation, model, judge):
    assert report["model"]["digest"] == model.digest
    assert report["judge"] == {"name": "judge", "digest": judge.digest, "independent": True}
    assert report["counts"] == {"seen": 8, "elsewhere": 8}
    assert report["config"]["seed"] == 0
    assert report["data"]["train"] == Shapes().fingerprint
    assert len(report["code"]) == 12
    assert json.loads(json.dumps(report)) == report


def test_report_measures_everything(report):
    assert set(report["captions_followed"]) == {"seen", "elsewhere"}
    assert report["captions_followed"]["seen"]["chance"] == pytest.approx(1 / 5)
    assert set(report["distances"]) == {"generated", "real"}
    # Random pictures are nothing like shapes; real ones are like other real ones.
    assert report["distances"]["generated"]["frechet"] > report["distances"]["real"]["frechet"]
    assert report["distances"]["generated"]["mmd"] > report["distances"]["real"]["mmd"]
    assert set(report["retrieval"]) == {"clip", "judge"}
    assert set(report["memorisation"]) == {"seen", "unseen"}
    assert [row["changed"] for row in report["ablations"]["priors"]] == [
        {"prior": "none"},
        {"prior": "text"},
        {"prior": "diffusion"},
    ]


def test_table_shows_each_number_under_its_name(report):
    lines = table(report).splitlines()
    assert lines[1].startswith("judge: judge (")
    row = next(line.split() for line in lines if line.startswith("elsewhere "))
    share = report["captions_followed"]["elsewhere"]
    assert row[1:] == [
        "8",
        *(f"{100 * share[key]:.1f}" for key in ("share", "error", "real_share", "of_real", "chance")),
    ]
    assert "prior diffusion" in table(report)


def test_without_a_judge_the_report_warns(model, config, cache):
    evaluation = Evaluation(model, config(count=6), cache=cache)
    assert not evaluation.independent
    assert evaluation.judge.digest == evaluation.clip.digest
    report = evaluate(evaluation)
    assert set(report["retrieval"]) == {"clip"}
    assert "not independent" in table(report)


def test_real_drawings_as_answers_score_what_real_drawings_score(evaluation):
    drawn = Drawn([one.real for one in evaluation.asked], evaluation.real, None)
    for followed in followed_by_group(evaluation, drawn).values():
        assert followed.share == followed.real_share
        assert followed.similarity == pytest.approx(followed.real_similarity)
    distances = set_distances(evaluation, drawn)
    assert distances["generated"] == distances["real"]


def test_training_drawings_as_answers_are_found_out(evaluation):
    drawn = Drawn([one.real for one in evaluation.asked], evaluation.real, None)
    found = memorisation_by_set(evaluation, drawn)
    # The seen group's drawings are training drawings; distances in pixels are exactly 0.
    assert found["seen"]["pixels"]["median"] == 0.0
    assert found["seen"]["pixels"]["copies"] == 1.0
    assert found["unseen"]["pixels"]["median"] == found["unseen"]["pixels"]["held_out_median"]


def test_a_drawing_asked_twice_counts_once(model, judge, config, cache):
    def with_more(times: int) -> Evaluation:
        made = Evaluation(model, config(), judge=judge, cache=cache)
        seen, (group, questions, real, reference) = made.asked
        asked = questions.asked + times * questions.asked[:1]
        again = torch.cat([real, *times * [real[:1]]])
        made.asked = [seen, Asked(group, Questions(asked, questions.reference), again, reference)]
        return made

    plain = with_more(0)
    drawn = Drawn([one.real for one in plain.asked], plain.real, None)
    assert memorisation_by_set(with_more(20), drawn) == memorisation_by_set(plain, drawn)


def test_distances_are_of_as_many_as_are_asked_for(model, judge, config, cache):
    few = Evaluation(model, config(), judge=judge, cache=cache)
    many = Evaluation(model, config(distance_multiple=3), judge=judge, cache=cache)
    assert [len(one.questions.asked) for one in many.asked] == [8, 24]
    assert many.asked[1].first(8).questions.asked == few.asked[1].questions.asked
    assert len(many.reference) == 24
    distances = set_distances(many, Drawn([one.real for one in many.asked], many.real, None))
    assert [row["count"] for row in distances.values()] == [24, 24]
    # Of 48 captions half are the reference's: they may be asked too, and are not compared with themselves.
    most = Evaluation(model, config(count=40), judge=judge, cache=cache)
    assert [len(one.questions.asked) for one in most.asked] == [40, 40]
    distances = set_distances(most, Drawn([one.real for one in most.asked], most.real, None))
    assert [row["count"] for row in distances.values()] == [24, 24]
    assert distances["real"]["frechet"] > 1e-4


@pytest.mark.parametrize(
    ("total", "shares"), [(0, [0, 0, 0]), (9, [3, 3, 3]), (14, [5, 4, 5]), (20, [8, 4, 8]), (99, [30, 4, 9])]
)
def test_shares_are_as_even_as_can_be(total, shares):
    assert share_evenly(total, [30, 4, 9]) == shares


def test_ablations_take_the_same_captions_and_seeds(evaluation):
    same, other = compare(evaluation, [{}, {"prior": "text"}])
    drawn = evaluation.draw()
    assert same.by_group == {name: each.share for name, each in followed_by_group(evaluation, drawn).items()}
    assert same.frechet == pytest.approx(set_distances(evaluation, drawn)["generated"]["frechet"])
    assert other.frechet != same.frechet
    assert same.seconds is not None
    assert same.seconds > 0


def test_pictures_are_kept_and_read_again(model, tmp_path):
    seen: list[tuple[int, int]] = []
    asked = [("a red circle", 1), ("a big blue ring", 2), ("a square", 3)]
    first = draw_pictures(model, asked[:2], model.defaults, folder=tmp_path, batch=1)
    files = sorted(tmp_path.rglob("*.png"))
    before = [file.stat().st_mtime_ns for file in files]
    second = draw_pictures(
        model,
        asked,
        model.defaults,
        folder=tmp_path,
        batch=1,
        report=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(2, 3), (3, 3)]
    assert [file.stat().st_mtime_ns for file in files] == before
    assert torch.equal(second.pixels[:2], first.pixels)
    fresh = draw_pictures(model, asked, model.defaults, batch=1)
    assert torch.equal(fresh.pixels, second.pixels)
    again = draw_pictures(model, asked, model.defaults, folder=tmp_path)
    assert (again.seconds or 0) > 0
    (times,) = tmp_path.rglob("times.json")
    assert json.loads(times.read_text()) == {"pictures": 3, "seconds": pytest.approx(3 * again.seconds)}
    times.write_text("[1,")
    assert draw_pictures(model, asked, model.defaults, folder=tmp_path).seconds is None


def test_other_settings_and_damaged_files_are_drawn(model, tmp_path):
    asked = [("a red circle", 1)]
    first = draw_pictures(model, asked, model.defaults, folder=tmp_path)
    (file,) = tmp_path.rglob("*.png")
    file.write_bytes(b"damaged")
    assert torch.equal(draw_pictures(model, asked, model.defaults, folder=tmp_path).pixels, first.pixels)
    draw_pictures(model, asked, sampling(steps=3).over(model.defaults), folder=tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 2
    # A picture of another request under this name is not taken for it.
    draw_pictures(model, [("a blue ring", 1)], model.defaults, folder=tmp_path)
    (other,) = (one for one in file.parent.glob("*.png") if one != file)
    other.replace(file)
    assert torch.equal(draw_pictures(model, asked, model.defaults, folder=tmp_path).pixels, first.pixels)


def test_kept_pictures_carry_their_request(model, tmp_path):
    draw_pictures(model, [("a red circle", 1)], model.defaults, folder=tmp_path)
    (file,) = tmp_path.rglob("*.png")
    found = read_provenance(file)
    assert (found["provenance"], found["digest"]) == (2, model.digest)
    recorded = {name: found["request"][name] for name in ("kind", "prompt", "seed", "size")}
    assert recorded == {"kind": "generate", "prompt": "a red circle", "seed": 1, "size": 16}


def test_embeddings_of_a_training_set_are_kept(judge, tmp_path):
    shapes = Shapes(count=20)
    resident = DecodedCache.load(shapes, 16, tmp_path / "pictures")
    embeddings = judge.training_set(resident, shapes.fingerprint, tmp_path / "cache")
    torch.testing.assert_close(embeddings, judge.pictures(resident.pictures(np.arange(20))))
    (file,) = (tmp_path / "cache").iterdir()
    assert judge.digest in file.name
    file.unlink()
    assert torch.equal(judge.training_set(resident, shapes.fingerprint, tmp_path / "cache"), embeddings)


def test_encoder_from_a_run_folder_is_the_models_clip(model, model_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(model_folder)
    assert Encoder.load(tmp_path / "run").digest == Encoder.of(model).digest
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        Encoder.load(tmp_path)


def test_followed_counts_what_the_judge_picks(judge):
    texts = ["a red circle", "a blue square", "a big ring"]
    vectors = judge.captions(texts)
    options = [[texts[0], texts[1]], [texts[1], texts[2]], [texts[2], texts[0]]]
    # A picture that sits on its caption's embedding is picked, one that sits on another's is not.
    generated = torch.stack([vectors[0], vectors[2], vectors[2]])
    found = captions_followed(judge, generated, vectors, options)
    assert (found.count, found.real_share, found.chance) == (3, 1.0, 0.5)
    assert found.share == pytest.approx(2 / 3)
    assert found.real_similarity == pytest.approx(1.0, abs=1e-5)


def test_thumbnail_distance_is_a_root_mean_square():
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    half = black.clone()
    half[:, :, 32:] = 255
    difference = (from_uint8(black) - from_uint8(half)).square().mean().sqrt()
    assert (thumbnails(black) - thumbnails(half)).norm().item() == pytest.approx(difference.item())


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("choices", 1), ("batch", 0)])
def test_counts_that_measure_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        EvaluationConfig(data="shapes", groups=(), **{name: value})


def test_data_must_be_named(model, config):
    with pytest.raises(ValueError, match="--data"):
        Evaluation(model, EvaluationConfig(groups=config().groups))


def test_pictures_of_an_unknown_size_are_refused(model, tmp_path: Path):
    with pytest.raises(ValueError, match="16 pixels, not 999"):
        draw_pictures(model, [("a ring", 1)], model.defaults, size=999, folder=tmp_path)
