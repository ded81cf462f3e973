"""``timelens audit``: signs of label errors, measured against errors put in on purpose, and read on real sentences."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from timelens_plugins.answers import PROMPTS, ask
from timelens_plugins.cli import main
from timelens_plugins.metrics import Sample
from timelens_plugins.moments import Moment, load_moments, save_moments
from timelens_plugins.quality.asked import asked_for
from timelens_plugins.quality.auditing import audit, findings_of, picture_evidence, read_findings, wording_evidence
from timelens_plugins.quality.calibration import BANDS, FILE, PRIOR
from timelens_plugins.quality.findings import KINDS, Evidence
from timelens_plugins.quality.grounding import grounding_evidence
from timelens_plugins.quality.lengths import length_evidence
from timelens_plugins.quality.pairs import pair_evidence
from timelens_plugins.quality.seeding import seed_errors
from timelens_plugins.quality.wording import unclear_reasons
from timelens_plugins.results import Case
from timelens_plugins.spans import Span, temporal_iou
from timelens_plugins.synthetic.benchmark import write_training_set


def moment(query: str, start: float, end: float, video: str = "v", duration: float = 30.0) -> Moment:
    spans = (Span(start, end),)
    return Moment(f"{video}:{query}:{start}", f"{video}.mp4", video, query, spans, duration, "made")


def crowd() -> list[Moment]:
    """Other queries, so that words have a rarity."""
    verbs, things = ("opens", "holds", "washes", "paints", "drops"), ("box", "cup", "door", "wall", "ball", "shoe")
    return [
        moment(f"person {verb} a {thing}", i, i + 4 + j, f"c{i}{j}")
        for i, verb in enumerate(verbs)
        for j, thing in enumerate(things)
    ]


def signs(*moments: Moment) -> Counter[tuple[str, str]]:
    names = {m.id: m.query for m in moments}
    return Counter((names[e.moment], e.kind) for e in pair_evidence([*moments, *crowd()]) if e.moment in names)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (
            ("person opens the door", 1, 5),
            ("a person is opening a door", 1, 5),
            {"a person is opening a door": "duplicate"},
        ),
        (("person opens the door", 1, 5), ("person opens the dooor", 1, 5), {"person opens the dooor": "duplicate"}),
        (("person opens a door", 1, 5), ("person opens a door slowly", 9, 12), {"person opens a door": "several"}),
        (
            ("person opens the door", 1, 5),
            ("the person opens a door", 9, 12),
            {"person opens the door": "several", "the person opens a door": "several"},
        ),
        (
            ("person opens the door", 1, 5),
            ("the person opens a door", 3, 9),
            {"person opens the door": "inaccurate", "the person opens a door": "inaccurate"},
        ),
        (("person turns on the light", 1, 5), ("person turns off the light", 9, 12), {}),
        (("person turns the light on", 1, 5), ("person turns off the light", 1, 5), {}),
        (("person opens the door", 1, 5), ("person closes the door", 1, 5), {}),
        (("a man drinks water", 1, 5), ("a woman drinks water", 9, 12), {}),
        (("person holds a cup again", 9, 12), ("person holds a cup by its handle", 1, 5), {}),
        (("person paints a wall", 1, 5), ("person stops painting the wall", 9, 12), {}),
        (("she paints the box", 1, 5), ("next to a box a person paints", 9, 12), {}),
        (("person washes a cup", 1, 5), ("person paints a wall", 1, 5), {}),
    ],
)
def test_pairs(a: tuple, b: tuple, expected: dict[str, str]) -> None:
    assert signs(moment(*a), moment(*b)) == Counter(expected.items())


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("he does it again", "refers"),
        ("the second time the dog jumps", "refers"),
        ("She puts it there", "pronoun"),
        ("they leave", "pronoun"),
        ("a person does something", "vague"),
        ("something happens", "vague"),
        ("then the man opens the window", "follows"),
        ("this person throws the broom down", None),
        ("a red circle appears", None),
        ("Woman in plaid shirt sits still by a red couch", None),
        ("两个人在厨房里做饭", None),
    ],
)
def test_wording(query: str, first: str | None) -> None:
    assert next(iter(unclear_reasons(query)), None) == first


def test_lengths_against_the_clip_and_the_rest() -> None:
    usual = [moment("person eats", 5, 9 + i % 3, f"u{i}") for i in range(10)]
    odd = moment("person eats", 2, 2.5, "odd")
    whole = moment("person sleeps", 0, 30, "whole")
    late = moment("person sings", 20, 32, "late")
    found = {(e.moment, e.signal) for e in length_evidence([*usual, odd, whole, late])}
    assert found == {(odd.id, "unusual length"), (whole.id, "whole clip"), (late.id, "beyond the clip")}


def test_seeded_errors_are_what_they_say() -> None:
    moments = [
        moment(f"a {color} {('circle', 'ring')[i % 2]} appears", 2 + 8 * k, 6 + 8 * k, f"v{i}", 20)
        for i in range(60)
        for k, color in enumerate(["red", "blue"])
    ]
    seeded, wrong = seed_errors(moments, 0.1, seed=3)
    assert Counter(wrong.values()) == dict.fromkeys(KINDS, 12)
    before = {m.id: m for m in moments}
    assert [m.id for m in seeded if not m.id.endswith("+")] == [m.id for m in moments]
    asked = {(m.video_id, m.query) for m in moments}
    for m in seeded:
        kind, old = wrong.get(m.id), before.get(m.id.removesuffix("+"))
        assert old is not None
        if kind is None:
            assert m == old
        elif kind == "inaccurate":
            assert m.query == old.query
            assert temporal_iou(m.spans[0], old.spans[0]) < 0.5
            assert 0 <= m.spans[0].start < m.spans[0].end <= 20
        else:
            assert m.spans == old.spans
            assert m.query != old.query
        if kind == "several":
            assert m.query in ("a circle appears", "a ring appears")
        if kind == "absent":
            assert (m.video_id, m.query) not in asked
    assert seed_errors(moments, 0.1, seed=3)[1] == wrong
    assert set(seed_errors(moments, {"unclear": 0.5}, seed=3)[1].values()) == {"unclear"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Moment]]:
    folder = tmp_path_factory.mktemp("clips")
    file = write_training_set(folder, 25, seed=5, size=64, progress=False)
    return file, list(load_moments(file, video_root=folder / "videos"))


def test_seeded_errors_are_found(clips: tuple[Path, list[Moment]]) -> None:
    """Precision and recall of the kinds that need no model, on other clips than those of the calibration."""
    _, moments = clips
    hits: Counter[str] = Counter()
    found: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for seed in range(3):
        seeded, wrong = seed_errors(moments, 0.1, seed=seed)
        seen, unreadable = picture_evidence(seeded)
        assert not unreadable
        evidence = [*pair_evidence(seeded), *length_evidence(seeded), *wording_evidence(seeded), *seen]
        errors.update(wrong.values())
        for finding in findings_of(seeded, evidence):
            if finding.score >= 0.5:
                found[finding.kind] += 1
                hits[finding.kind] += wrong.get(finding.moment) == finding.kind
    precision = {kind: hits[kind] / max(found[kind], 1) for kind in KINDS}
    recall = {kind: hits[kind] / errors[kind] for kind in KINDS}
    print({kind: (round(precision[kind], 2), round(recall[kind], 2)) for kind in KINDS})
    for kind in ("several", "duplicate", "unclear"):
        assert precision[kind] >= 0.9, kind
        assert recall[kind] >= 0.9, kind
    assert precision["inaccurate"] >= 0.8
    assert recall["inaccurate"] >= 0.7


def test_a_sign_that_is_common_in_a_file_is_worth_little() -> None:
    """Where every event lasts the whole clip, that is no sign of an error."""
    table = json.loads(FILE.read_text())
    assert table["bands"] == list(BANDS)
    rare = [moment(f"thing{i} turns", 1, 9, f"v{i}") for i in range(99)] + [moment("odd turns", 0, 30, "odd")]
    common = [moment(f"thing{i} turns", 0, 30, f"v{i}") for i in range(100)]
    [one] = findings_of(rare, length_evidence(rare))
    assert one.score > 0.8
    many = findings_of(common, length_evidence(common))
    assert len(many) == 100
    assert all(finding.score <= PRIOR for finding in many)


def test_the_command(clips: tuple[Path, list[Moment]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, moments = clips
    broken = Path(moments[0].video)
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    out = tmp_path / "findings.jsonl"
    try:
        assert main(["audit", str(file), "--videos", str(file.parent / "videos"), "-o", str(out)]) == 0
    finally:
        broken.write_bytes(content)
    printed = capsys.readouterr().out
    assert "1 videos could not be looked at" in printed
    [line] = [line for line in printed.splitlines() if line.startswith(f"  {broken}: ")]
    assert line.count(broken.name) == 1
    found = read_findings(out)
    assert found == sorted(found, key=lambda finding: -finding.score)
    assert [finding.to_row() for finding in found] == [json.loads(line) for line in out.read_text().splitlines()]
    assert {finding.moment for finding in found} <= {m.id for m in moments}


def test_a_findings_file_edited_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    good = {
        "moment": "a",
        "video": "v",
        "query": "q",
        "spans": [[1, 2]],
        "kind": "unclear",
        "score": 0.5,
        "evidence": [],
    }
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"kind": "wrong"}) + "\n")
    with pytest.raises(ValueError, match=r"line 2: unknown kind 'wrong'"):
        read_findings(path)
    for score in ("NaN", "7", "-0.1", "1" + "0" * 400):
        path.write_text(json.dumps(good).replace("0.5", score))
        with pytest.raises(ValueError, match="line 1: "):
            read_findings(path)
    path.write_text(json.dumps(good | {"query": "two\u2028parts"}, ensure_ascii=False) + "\n\n")
    assert [finding.query for finding in read_findings(path)] == ["two\u2028parts"]
    path.write_text('{"moment": "a"}\n')
    with pytest.raises(ValueError, match="line 1: not a finding"):
        read_findings(path)


def test_one_moment(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps({"a": {"duration": 9.0, "spans": [[1, 4]], "queries": ["a dog barks at a cat"]}}))
    assert audit(file).findings == []


def test_readings_count_where_there_are_enough() -> None:
    """What was read on real benchmarks goes before what was measured on seeded errors."""
    content = json.loads(FILE.read_text())
    m = moment("a dog", 1, 2)
    checked = 0
    for signal, bands in content["read"].items():
        assert len(bands) == len(BANDS) + 1
        for low, counts in zip((0.0, *BANDS), bands, strict=True):
            [finding] = findings_of([m] * 1000, [Evidence(m.id, "unclear", signal, low, "because")])
            seeded = (content["signals"].get(signal) or [None] * len(bands))[bands.index(counts)]
            if counts is not None and counts[1] >= 10:
                assert finding.score == pytest.approx((counts[0] + 1) / (counts[1] + 2)), signal
                checked += 1
            elif counts is not None and seeded is not None:
                assert finding.score == pytest.approx(seeded[0]), signal
    assert checked >= 5


def test_evidence_of_an_unknown_signal_counts_little() -> None:
    m = moment("a dog", 1, 2)
    [finding] = findings_of([m], [Evidence(m.id, "absent", "never measured", 0.9, "because")])
    assert finding.score <= 0.2


def test_real_sentences(real_data: Path) -> None:
    """Every finding has a reason; repetitions are found, and not more than the 20.6 % that the paper counts."""
    report = audit(real_data / "charades" / "charades_sta_test.json")
    counts = Counter(finding.kind for finding in report.findings)
    assert 300 < counts["duplicate"] < 0.206 * 3720
    assert all(e.reason for finding in report.findings for e in finding.evidence)


def answers(m: Moment, *spans: tuple[float, float] | None) -> Case:
    """A case of several answers to a moment."""
    return Case(
        tuple(
            Sample(m.video_id, m.query, m.spans, Span(*s) if s else None, "parsed" if s else "unparsed") for s in spans
        )
    )


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(10, 20)] * 8, set()),
        ([(10.5, 19), (10, 21), (9, 20), (10, 20)], set()),
        ([(2, 8)] * 7 + [(10, 20)], {("inaccurate", "answers agree elsewhere"), ("absent", "answers agree apart")}),
        ([(10, 14)] * 8, {("inaccurate", "answers agree elsewhere")}),
        ([(10, 20)] * 5 + [(24, 28)] * 3, {("several", "answers in two places"), ("absent", "answers disagree")}),
        ([None] * 6 + [(10, 20)] * 2, {("absent", "no answer")}),
        ([None] * 8, {("absent", "no answer")}),
        ([(2, 8)], {("inaccurate", "answer elsewhere")}),
        ([(3, 3)] * 3, {("inaccurate", "answers agree elsewhere"), ("absent", "answers agree apart")}),
    ],
)
def test_answers_of_a_model(spans: list, expected: set[tuple[str, str]]) -> None:
    m = moment("a dog barks", 10, 20)
    found = {(e.kind, e.signal) for e in grounding_evidence([m], {m.id: answers(m, *spans)})}
    assert found == expected


def test_a_better_span_is_named() -> None:
    m = moment("a dog barks", 10, 20)
    [first, *_] = grounding_evidence([m], {m.id: answers(m, *[(2, 8), (2.2, 8), (2, 8.4), (12, 19)])})
    assert first.spans == ((2.0, 8.0),)
    assert "3 of 4 answers agree on 2 - 8 s" in first.reason


def test_answers_are_found_by_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Difficulty rows of another file are refused; missing answers and foreign ones are counted."""
    asked = [moment("a dog barks", 10, 20, "a"), moment("a cat sleeps", 2, 9, "b")]
    save_moments(asked, tmp_path / "m.jsonl")
    row = {"source": "s", "data_type": "t", "video_path": "a.mp4", "duration": 30.0, "query": "a dog barks"}
    row |= {"span": [[10, 20]], "pred": [2.0, 8.0], "answer": "2 - 8", "iou": 0.0}
    rows = tmp_path / "answers.jsonl"
    rows.write_text(json.dumps(row) + "\n" + json.dumps(row | {"query": "another", "video_path": "c.mp4"}) + "\n")
    assert main(["audit", str(tmp_path / "m.jsonl"), "--answers", str(rows)]) == 0
    printed = capsys.readouterr().out
    assert "the answer is 2 - 8 s" in printed
    assert "1 of 2 moments have no answer" in printed
    assert "1 answers are to moments that the annotations do not hold" in printed
    rows.write_text(json.dumps(row | {"query": "another"}) + "\n")
    assert main(["audit", str(tmp_path / "m.jsonl"), "--answers", str(rows)]) == 2
    assert "other annotations" in capsys.readouterr().err


QUERY = "a dog catches the red ball"
QUOTED = (
    'Given "{query}", return the matching video interval in seconds.',
    'Watch the video and identify when the query is answered: "{query}".',
    'What time range in the video are relevant to "{query}"?',
    "Locate the segment described by '{query}'.",
)
LED = (
    "Show me the moment when {query}.",
    "Find the segment where {query}.",
    "At what point does {query}?",
    "When can we see {query}?",
    "Show the part in which {query}.",
)
FORMS = (
    "",
    "\nFormat your answer exactly as `[[start, end]]`, using seconds. Do not include any extra explanation.",
    "\nReturn only the answer in this exact format: [[MM:SS, MM:SS]]. For several: [[MM:SS, MM:SS], [MM:SS, MM:SS]].",
    ' Please express the timestamp in the format of "[start]s - [end]s".',
    "\nFor a single match: 'Time intervals: [start] - [end]'. For multiple: 'Time intervals: [start] - [end], …'.",
)


@pytest.mark.parametrize("wrapper", [*PROMPTS.values(), *QUOTED, *LED])
@pytest.mark.parametrize("form", FORMS)
def test_the_query_is_found_in_the_prompts_around_it(wrapper: str, form: str) -> None:
    if wrapper in PROMPTS.values() and form:
        return  # they hold their own form
    assert asked_for(ask(wrapper, QUERY) + form) == QUERY
    # A query of which the order would be a part, or with words of its own outside the quotes, is left whole.
    assert asked_for('He says "I am leaving" and shuts the door') is None
    assert asked_for("a man shows the format of a letter to the class") is None
    assert asked_for("the man gives a seconds-long speech. Then he sits down") is None


def test_chat_rows_are_judged_by_the_query_and_not_by_its_wrapper(tmp_path: Path) -> None:
    def row(number: int, question: str) -> str:
        messages = [{"role": "user", "content": f"<video>{question}"}, {"role": "assistant", "content": "[[2.0, 7.0]]"}]
        return json.dumps({"messages": messages, "videos": [f"{number}.mp4"], "duration": 30.0}) + "\n"

    clear = [ask(wrapper, QUERY) + form for wrapper in (*QUOTED, *LED) for form in FORMS]
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(row(i, question) for i, question in enumerate([*clear, 'When "again"?' + FORMS[1]])))
    found = audit(file)
    assert [(f.query, f.kind) for f in found.findings if f.kind == "unclear"] == [("again", "unclear")]
    assert found.notes == ()
    file.write_text("".join(row(i, q) for i, q in enumerate([*clear, "Bitte, wo bellt der Hund?", "Und die Katze?"])))
    assert [note for note in audit(file).notes if "2 of 47 questions are in no known form of prompt" in note]
    assert len(audit(file).notes) == 1


def test_real_chat_rows_are_not_all_unclear(real_data: Path) -> None:
    for name, most in (("ego4d_nlq_train", 0.10), ("timelens100k_over180", 0.10)):
        found = audit(real_data / "chat" / f"{name}.jsonl")
        unclear = [finding for finding in found.findings if finding.kind == "unclear"]
        assert 0 < len(unclear) < most * len(found.moments)
        assert not [f.query for f in found.findings if "format" in f.query.lower() or "[start" in f.query]
        assert found.notes == ()
