"""Immune repertoires: what is simulated, how k-mers are counted, what is read, and what is refused with its place."""

import gzip
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsehopfield.data.repertoires import AMINO_ACIDS, ENDS, STARTS, Repertoires, kmers, load_airr, simulate
from sparsehopfield.errors import FileFormatError


def test_the_same_seed_makes_the_same_repertoires():
    one, other, third = (simulate(4, 50, 0.1, seed=seed) for seed in (3, 3, 4))
    assert one.motifs == other.motifs
    assert np.array_equal(one.sequences, other.sequences)
    assert not np.array_equal(one.sequences, third.sequences)


def test_sequences_begin_and_end_as_those_of_people():
    made = simulate(2, 4000, 1e-9, seed=0)
    words = [sequence.decode() for sequence in made.sequences[~made.implanted]]
    assert Counter(made.implanted) == {False: 7999, True: 1}  # a positive repertoire has at least one
    lengths = np.array([len(word) for word in words])
    assert (lengths.min(), lengths.max()) == (11, 20)
    assert lengths.mean() == pytest.approx(14.5, abs=0.1)
    assert {word[:4] for word in words} == set(STARTS)
    ends = tuple(end[cut:] for end in ENDS for cut in range(3))
    assert all(word.endswith(ends) for word in words)
    assert np.mean([word.startswith("CASS") for word in words]) == pytest.approx(STARTS["CASS"], abs=0.03)
    assert set("".join(words)) <= set(AMINO_ACIDS)
    assert made.letters.shape == (8000, 20)
    assert made.counts.min() == 1


def test_motifs_are_where_they_are_said_to_be():
    made = simulate(6, 2000, 0.05, motifs=("WHMK", "YDEP"), gap=0.3, deletion=0.3, seed=1)
    kinds = Counter()
    for sequence, implanted in zip(made.sequences, made.implanted, strict=True):
        word, inner = sequence.decode(), sequence.decode()[3:-3]
        if implanted:
            forms = ("WHMK|YDEP", "WH.MK|YD.EP", "WHK|YDP|WMK|YEP", "WH.K|YD.P|W.MK|Y.EP")
            kind = next((i for i, form in enumerate(forms) if re.search(form, inner)), None)
            assert kind is not None, word
            kinds[kind] += 1
    shares = np.array([kinds[i] for i in range(4)]) / made.implanted.sum()
    assert shares == pytest.approx([0.49, 0.21, 0.21, 0.09], abs=0.07)
    per_bag = np.bincount(made.owner, made.implanted, 6)
    assert np.array_equal(per_bag == 0, made.labels == 0)
    assert per_bag[1::2].mean() == pytest.approx(100, abs=20)


def test_without_gap_and_deletion_the_motif_is_whole():
    made = simulate(2, 3000, 0.02, motifs="WHMK", gap=0, deletion=0, seed=2)
    assert np.array_equal(np.char.find(made.sequences, b"WHMK") >= 0, made.implanted)
    part = made.part(1, 2)
    assert part.names == ("00001",)
    assert np.array_equal(part.sequences, made.sequences[3000:])
    assert np.array_equal(part.implanted, made.implanted[3000:])
    for bounds, message in (((-1, 1), "first: "), ((3, 3), "first: "), ((1, 0), "end: "), ((1, 3), "end: ")):
        with pytest.raises(ValueError, match=f"^{message}"):
            made.part(*bounds)
    with pytest.raises(TypeError, match=r"^end: "):
        made.part(0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repertoires": 1}, "repertoires: "),
        ({"size": 0}, "size: "),
        ({"rate": 0.0}, "rate: "),
        ({"rate": 2.0}, "rate: "),
        ({"gap": -0.1}, "gap: "),
        ({"deletion": 1.5}, "deletion: "),
        ({"motifs": 0}, "motifs: "),
        ({"motifs": ["ABC"]}, "motifs: "),
        ({"motifs": []}, "motifs: "),
        ({"motifs": "WHMB"}, "motifs: "),
        ({"repertoires": 2**40, "size": 2**41}, "size: "),
    ],
)
def test_bad_recipes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{"repertoires": 2, "size": 10, "rate": 0.1, **options})


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(AMINO_ACIDS, max_size=9), min_size=1, max_size=6),
    st.integers(1, 3),
    st.booleans(),
)
def test_kmers_are_those_of_a_loop(words, k, weighted):
    weights = np.arange(1.0, len(words) + 1) if weighted else None
    found = kmers(np.array(words, "S9"), k, weights=weights, dtype=np.float64).toarray()
    expected = np.zeros((len(words), 20**k))
    for row, word in enumerate(words):
        for at in range(len(word) - k + 1):
            number = sum(AMINO_ACIDS.index(letter) * 20 ** (k - 1 - i) for i, letter in enumerate(word[at : at + k]))
            expected[row, number] += 1 if weights is None else weights[row]
    assert np.array_equal(found, expected)
    columns = np.flatnonzero(expected.any(axis=0))[::-1][:4]
    some = kmers(np.array(words, "S9"), k, columns=columns, weights=weights, dtype=np.float64)
    assert np.array_equal(some.toarray(), expected[:, columns])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sequences": ["CASS"]}, TypeError, "sequences: "),
        ({"sequences": np.array([[b"CASS"]])}, TypeError, "sequences: "),
        ({"sequences": np.array([b"CASS", b"CA*S"])}, ValueError, "sequences: row 1 is"),
        ({"sequences": np.array([b"CASS", b"CA\0S"])}, ValueError, "sequences: row 1 is"),
        ({"k": 0}, ValueError, "k: "),
        ({"k": 6}, ValueError, "k: "),
        ({"columns": [0, 0]}, ValueError, "columns: "),
        ({"columns": [8000]}, ValueError, "columns: "),
        ({"columns": [0.5]}, TypeError, "columns: "),
        ({"weights": [1.0]}, ValueError, "weights: "),
        ({"weights": [1.0, np.nan]}, ValueError, "weights: must be finite"),
        ({"weights": [1.0, 1e300]}, ValueError, "weights: must be finite, and not beyond float32"),
        ({"weights": [1, 2**24 + 1]}, ValueError, "weights: has integers beyond"),
    ],
)
def test_bad_arguments_of_kmers_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        kmers(**{"sequences": np.array([b"CASSLGF", b"CASSF"]), **arguments})


LABELS = "repertoire_id\tlabel\nanna\t1\nbert\t0\n"
ANNA = "\n".join(
    [
        "sequence_id\tproductive\tjunction_aa\tduplicate_count",
        "s1\tT\tCASSLGF\t3",
        "s2\tF\tCAS*F\t1",
        "s3\tT\t\t1",
        "s4\tT\tCASSF\t",
    ]
)
BERT = "cdr3_aa,sequence_aa\nASSP,CASSPF\n"


def cohort(folder, labels=LABELS, anna=ANNA, bert=BERT, packed=False):
    (folder / "labels.tsv").write_text(labels)
    (folder / "repertoires").mkdir()
    (folder / "bert.csv").write_text(bert)
    file = folder / "repertoires" / ("anna.tsv.gz" if packed else "anna.tsv")
    file.write_bytes(gzip.compress(anna.encode()) if packed else anna.encode())
    return folder / "labels.tsv"


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read(tmp_path, packed):
    found = load_airr(cohort(tmp_path, packed=packed))
    assert found.names == ("anna", "bert")
    assert found.labels.tolist() == [1, 0]
    assert found.sequences.tolist() == [b"CASSLGF", b"CASSF", b"ASSP"]
    assert found.counts.tolist() == [3, 1, 1]
    assert found.offsets.tolist() == [0, 2, 3]
    assert found.implanted is None


def test_other_columns_and_labels_are_read(tmp_path):
    labels = "ID;status;file\nx;-;bert.csv\ny;+;repertoires/anna.tsv\n"
    path = cohort(tmp_path, labels, anna="amino_acid\ttemplates\nCASSLGF\t6\nCASSF\t2.0\n")
    found = load_airr(path, label="status", most=1)
    assert found.names == ("x", "y")
    assert found.labels.tolist() == [0, 1]
    assert found.counts.tolist() == [1, 6]
    assert load_airr(path, label="status", positive="-").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": "name\tlabel\nanna\t1\nbert\t0\n"}, "column repertoire_id or ID"),
        ({"labels": "repertoire_id\tstatus\nanna\t1\nbert\t0\n"}, "column label"),
        ({"labels": "repertoire_id\tlabel\nanna\t1\nbert\t1\n"}, "two different labels"),
        ({"labels": "repertoire_id\tlabel\nanna\t1\nanna\t0\n"}, "line 3: repertoire 'anna'"),
        ({"labels": "repertoire_id\tlabel\nanna\tsick\nbert\twell\n"}, "say which is positive"),
        ({"labels": "repertoire_id\tlabel\nanna\tyes\nbert\tunknown\n"}, "say which is positive"),
        ({"labels": "repertoire_id\tlabel\nanna\t1\nbert\t2\n"}, "say which is positive"),
        ({"labels": "repertoire_id\tlabel\nanna\t1\nbert\t\n"}, "line 3: repertoire 'bert' has no label"),
        ({"labels": "repertoire_id\tlabel\nanna\n"}, "line 2: must have 2 fields"),
        ({"bert": 'cdr3_aa,note\nASSP,"a\nASBP,b\n'}, "unexpected end of data"),
        ({"labels": ""}, "its header must name"),
        ({"bert": "sequence\nCASSPF\n"}, "column junction_aa or cdr3_aa"),
        ({"bert": "cdr3_aa\n"}, "has no sequence"),
        ({"bert": "cdr3_aa,productive\nASSP,F\n"}, "has no sequence"),
        ({"bert": "cdr3_aa\nASSP\nASBP\n"}, "line 3: 'ASBP' has B, which is no amino acid"),
        ({"bert": "cdr3_aa,duplicate_count\nASSP,0\n"}, "line 2: the count"),
        ({"bert": "cdr3_aa,duplicate_count\nASSP,1.5\n"}, "line 2: the count"),
        ({"bert": "cdr3_aa,duplicate_count\nASSP,many\n"}, "line 2: the count"),
        ({"bert": "cdr3_aa,duplicate_count\nASSP\n"}, "line 2: must have 2 fields"),
    ],
)
def test_damaged_files_are_told_with_their_place(tmp_path, changed, message):
    with pytest.raises(FileFormatError, match=message):
        load_airr(cohort(tmp_path, **changed))


def test_labels_are_guessed_only_where_both_say_what_they_are(tmp_path):
    path = cohort(tmp_path)
    for one, other in (("1", "0"), ("+", "-"), ("TRUE", "false"), ("Yes", "no"), ("positive", "Negative")):
        path.write_text(f"repertoire_id\tlabel\nanna\t{one}\nbert\t{other}\n")
        assert load_airr(path).labels.tolist() == [1, 0]
    path.write_text("repertoire_id\tlabel\nanna\tyes\nbert\tunknown\n")
    assert load_airr(path, positive="unknown").labels.tolist() == [0, 1]


def test_quotes_in_tsv_files_swallow_no_rows(tmp_path):
    anna = 'junction_aa\tnote\nCASSF\t5" gel\nCASSLF\t\nCASSPF\t"\n"CASSYF"\t"whole"\nCAS*F\t\n'
    path = cohort(tmp_path, anna=anna.replace("CAS*F\t\n", ""))
    assert load_airr(path).sequences.tolist() == [b"CASSF", b"CASSLF", b"CASSPF", b"CASSYF", b"ASSP"]
    (tmp_path / "repertoires" / "anna.tsv").write_text(anna)
    with pytest.raises(FileFormatError, match=r"line 6: 'CAS\*F'"):
        load_airr(path)
    (tmp_path / "bert.csv").write_text('cdr3_aa,note\nASSP,"two\nlines"\nASBP,\n')
    path.write_text("repertoire_id\tlabel\nbert\t1\nanna\t0\n")
    with pytest.raises(FileFormatError, match=r"line 4: 'ASBP'"):
        load_airr(path)


def test_no_sequences_have_no_letters():
    made = simulate(2, 5, 0.5, seed=0)
    assert made.letters.shape == (10, made.sequences.itemsize)
    none = Repertoires(made.sequences[:0], made.offsets[:1], made.labels[:0], made.counts[:0], ())
    assert none.letters.shape == (0, made.sequences.itemsize)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="repertoire_id and label"):
        load_airr(tmp_path / "labels.tsv")
    path = cohort(tmp_path, LABELS.replace("bert", "carl"))
    with pytest.raises(FileNotFoundError, match=r"carl: is not there.*labels\.tsv names it"):
        load_airr(path)
    path.write_text(LABELS)
    with pytest.raises(FileFormatError, match="say which is positive"):
        load_airr(path, positive="2")
    (tmp_path / "repertoires" / "anna.tsv").unlink()
    (tmp_path / "repertoires" / "anna.tsv.gz").write_bytes(gzip.compress(ANNA.encode())[:40])
    with pytest.raises(FileFormatError, match="anna"):
        load_airr(path)
