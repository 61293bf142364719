"""How messages count, list and suggest."""

from sglr.config.wording import counted, some, suggest


def test_counts():
    assert (counted(1, "seed"), counted(2000, "seed")) == ("1 seed", "2,000 seeds")


def test_of_many_names_the_first_are_told_and_how_many_more():
    assert some([]) == ""
    assert some(["a", "b", "c"], 3) == "a, b, c"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
    assert some(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"


def test_the_nearest_known_name_is_suggested_whatever_its_case():
    assert suggest("trades_", ["AT", "TRADES", "MART"]) == " Did you mean 'TRADES'?"
    assert suggest("something else", ["AT", "TRADES", "MART"]) == ""
