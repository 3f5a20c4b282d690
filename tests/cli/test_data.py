"""`unclip data` hands its options on, and says where the drawings come from when they are missing."""


def test_missing_packages(unclip, tmp_path):
    code, out, err = unclip("data", "artwork", tmp_path / "set", "--packages", tmp_path / "none")
    assert (code, out) == (1, "")
    assert "npm ci" in err


def test_a_set_must_be_named(unclip):
    code, out, err = unclip("data")
    assert (code, out) == (2, "")
    assert "SET" in err
