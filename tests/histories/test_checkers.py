"""The checkers: what Corosync would not do is found, by the right rule, and what it does is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from support.histories import history

from triocoro.testing import ClusterOptions, Rule, check

# -- bad histories -----------------------------------------------------------------------------------------------------

PAIR = "a join a; a ring 4 123; b join ab; b ring 4 123; a +b ab"
THREE = f"{PAIR}; c join abc; c ring 4 123; a +c abc; b +c abc"
# In a ring that all have entered together: what they deliver there is known from its beginning.
TOGETHER = f"{THREE}; a ring 8 123; b ring 8 123; c ring 8 123"
# All go on to another ring, or all but node 3 do.
ON = "a ring 12 123; b ring 12 123; c ring 12 123"
APART = "a down c ab; a ring 12 12; b down c ab; b ring 12 12; c down ab c; c ring 12 3"

BAD: dict[Rule, dict[str, str]] = {
    Rule.INTEGRITY: {
        "creation": f"{PAIR}; b got a x",
        "corruption": f"{PAIR}; a send x; b got a X",
        "a wrong sender": f"{PAIR}; a send x; b got b x",
        "a duplicate": f"{PAIR}; a send x; b got a x x",
        "a duplicate of one's own": f"{PAIR}; a send x; a got a x x",
        "a duplicate of a duplicate": f"{PAIR}; a send x; a send x; b got a x x x",
        "a duplicate in another ring": f"{PAIR}; a send x; b got a x; b ring 8 123; b got a x",
        "a failed call, twice": f"{PAIR}; a maybe x; b got a x x",
        "before it was sent": f"{PAIR}; b got a x; a send x",
        "from one who is no member": f"{PAIR}; a send x; b !a b; b got a x",
        "from one who never was": f"{PAIR}; b got d x",
        "from another group": "a join a; a ring 4 123; b join b h; b send x; a got b x",
        "before one's own join": "a connect; b join b; b send x; a got b x",
    },
    Rule.FIFO: {
        "two swapped": f"{PAIR}; a send x; a send y; b got a y x",
        "two of three swapped": f"{PAIR}; a send x; a send y; a send z; b got a x z y",
        "the last one first": f"{PAIR}; a send x; a send y; a send z; b got a z x y",
        "swapped in a burst": f"{PAIR}; a send x y; b got a y x",
        "a large one": f"{PAIR}; a frag x; a send y; b got a y x",
        "a failed one": f"{PAIR}; a maybe x; a send y; b got a y x",
        "across rings": f"{PAIR}; a send x y; b got a y; b ring 8 123; b got a x",
        "across two memberships": (
            f"{PAIR}; a send x; a got a x; a leave; a -a b; b -a b; a join ab; b +a ab; a send y; b got a y; b got a x"
        ),
        "with equal ones": f"{PAIR}; a send x y x; b got a x x y",
        "zero copy": f"{PAIR}; a zcb x; a zcb y; b got a y x",
    },
    Rule.TOTAL_ORDER: {
        "two swapped": f"{PAIR}; a send x; b send y; a got a x; a got b y; b got b y; b got a x",
        "swapped at a third one": (
            f"{THREE}; a send x; b send y; a got a x; a got b y; b got a x; b got b y; c got b y; c got a x"
        ),
        "in the middle": (
            f"{THREE}; a send w x z; b send y; a got a w x; a got b y; a got a z; c got a w; c got b y; c got a x z"
        ),
        "a gap": f"{THREE}; a send x z; c send y; a got a x; a got c y; a got a z; b got a x z",
        "a gap at the beginning": f"{TOGETHER}; c send x y; a got c x y; b got c y",
        "a large one": f"{PAIR}; a frag x; b send w y; a got b w; a got a x; a got b y; b got b w y",
        "a gap that began before the ring, among those who were together": (
            f"{TOGETHER}; c send y; {ON}; a send w x; c got a w; c got c y; c got a x; a got a w x; b got a w;"
            " b got c y; b got a x"
        ),
        "a gap in a later ring": (
            f"{TOGETHER}; {ON}; a send x z; c send y; a got a x; a got c y; a got a z; b got a x z"
        ),
        "a gap between two of one node": (
            f"{PAIR}; A join aAb; A ring 4 123; a +A aAb; b +A aAb; b send x y z; a got b x y z; A got b x z"
        ),
        "a gap of one that leaves, between two of one node": (
            f"{PAIR}; A join aAb; A ring 4 123; a +A aAb; b +A aAb; b send x y; a send z; a got b x y; a got a z;"
            " A got b x; A got a z; A leave; A -A ab"
        ),
        "a gap where a node has gone, between two of one node": (
            f"{PAIR}; A join aAb; A ring 4 123; a +A aAb; b +A aAb; b send x y; a send z; a got b x y; a got a z;"
            " A got b x; A got a z; A down b aA; A ring 8 1"
        ),
        "a gap although the node has not gone": (
            f"{TOGETHER}; c send y; a send x z; a got a x; a got c y; a got a z; b got a x z; c got c y"
        ),
        "more of a node that has gone": (
            f"{TOGETHER}; a send x; c send y z; a got a x; a got c z; b got a x; b got c z; c got a x; c got c y z;"
            f" {APART}"
        ),
        "equal ones swapped": (
            f"{TOGETHER}; c send x z; a send p p; b send q q; a got c x; a got a p; a got b q; a got c z;"
            " b got c x; b got b q; b got a p; b got c z"
        ),
        "equal ones are counted": f"{PAIR}; b send x y y z; a got b x y y z; b got b x y z; b lost y",
        "a change before a message": (
            f"{TOGETHER}; c send x y; a got c x; a +d abcd; a got c y; b +d abcd; b got c x; b got c y"
        ),
        "a change that is missing": f"{TOGETHER}; c send x y; a got c x; a +d abcd; a got c y; b got c x y",
        "different changes": (
            f"{TOGETHER}; c send x y; a got c x; a +d abcd; a got c y; b got c x; b +e abce; b got c y"
        ),
        "changes swapped": (
            f"{TOGETHER}; c send x y; a got c x; a +d abcd; a +B abcdB; a got c y;"
            " b got c x; b +B abcB; b +d abcdB; b got c y"
        ),
    },
    Rule.SELF_DELIVERY: {
        "overtaken": f"{PAIR}; a send x; a send y; a got a y",
        "the middle of a burst": f"{PAIR}; a send x y z; a got a x z",
        "a large one": f"{PAIR}; a frag x; a send y; a got a y",
        "zero copy": f"{PAIR}; a zcb x; a send y; a got a y",
        "left before": f"{PAIR}; a send x; a leave; a -a b",
        "left before the last one": f"{PAIR}; a send x y; a got a x; a leave; a -a b",
        "another one is reported": f"{PAIR}; a send x; a lost z; a send y; a got a y",
        "one of two is reported": f"{PAIR}; a send x x; a lost x; a send y; a got a y",
        "another client's is reported": f"{PAIR}; a send x; b lost x; a send y; a got a y",
        "in another ring": f"{PAIR}; a send x; a ring 8 123; a send y; a got a y",
        "others have it": f"{PAIR}; a send x; b got a x; a leave; a -a b",
        "one of two memberships is reported": (
            f"{PAIR}; a send x y; a lost x; a got a y; a leave; a -a b; a join ab; a send x y; a got a y"
        ),
        "one of two that may have been sent": f"{PAIR}; a maybe x; a send x x y; a got a x y",
        "in the second membership": f"{PAIR}; a leave; a -a b; a join ab; a send x; a leave; a -a b",
    },
    Rule.VIEW_AGREEMENT: {
        "one ring, different nodes": f"{PAIR}; a ring 8 12; b ring 8 123",
        "a ring without oneself": f"{PAIR}; a ring 8 23",
        "an older ring": f"{PAIR}; a ring 8 123; a ring 6 123",
        "two rings of one number": f"{PAIR}; a ring 8 123; a ring 8 123 2",
        "members outside of the ring": f"{THREE}; a ring 8 12",
        "one was not told": f"{THREE}; a down c ab; a ring 8 12; b ring 8 12",
        "different members": f"{PAIR}; a up c abc; a ring 8 123; b ring 8 123",
        "a change that is missing": f"{PAIR}; a +d abcd",
        "who has left stays": f"{THREE}; a -b abc",
        "who has joined does not": f"{PAIR}; a +c ab",
        "a member is gone without an event": f"{THREE}; a +d ad",
        "joined twice": f"{THREE}; a +c abc",
        "left twice": f"{THREE}; a !c ab; a !c ab",
        "not the own join": "a connect; a +b ab",
        "an own join without oneself": "a connect; a +a b",
        "a message in a transition": f"{THREE}; b send x; a down c ab; a got b x; a ring 8 12",
        "a join in a transition": f"{THREE}; A join A h; a down c ab; a +A aAb; a ring 8 12",
        "a leave in a transition": f"{THREE}; a down c ab; a -b a; a ring 8 12",
        "votequorum has other nodes": f"{PAIR}; v1 nodes 8 12; a ring 8 123",
        "quorum has other nodes": f"{PAIR}; q2 quorum yes 8 12; a ring 8 123",
        "an older ring of votequorum": "v1 nodes 8 123; v1 nodes 4 123",
        "an older ring of quorum": "q1 track; q1 list 8 123; q1 quorum yes 8 123; q1 quorum yes 4 123",
        "an older ring of quorum, after a change": "q1 track; q1 list 4 123; q1 list 8 123; q1 quorum yes 4 123",
        "an older list of nodes": "q1 track; q1 list 8 123; q1 list 4 123",
        "an older ring of quorum, with other nodes": "v2 nodes 4 23; q2 track; q2 list 8 123; q2 quorum no 4 2",
        "one on the node was not told of a ring": (
            f"{PAIR}; A join A h; A ring 4 123; a ring 8 123; A ring 12 123; a ring 12 123"
        ),
        "a ring of others": "v1 nodes 8 23",
        "a ring of fewer in a join": f"{TOGETHER}; {ON}; A join A h; A ring 12 12",
        "told twice of a ring": f"{PAIR}; a ring 8 123; a ring 8 123",
        "a ring of others in a join": f"{PAIR}; d join abd; d ring 4 34",
    },
    Rule.VIRTUAL_SYNCHRONY: {
        "one message": f"{TOGETHER}; a send x; a got a x; b got a x; {ON}",
        "the last of several": f"{TOGETHER}; a send x y; a got a x y; b got a x y; c got a x; {ON}",
        "each has another one": f"{TOGETHER}; c send x y; a got c x; b got c y; {ON}",
        "the others stay together": f"{TOGETHER}; c send x; a got c x; {APART}",
        "who came late": (
            f"{TOGETHER}; d join abcd; d ring 8 1234; a +d abcd; a send x; a got a x; a ring 12 1234; d ring 12 1234"
        ).replace("123;", "1234;"),
        "who was there before": (
            f"{TOGETHER}; d join abcd; d ring 8 1234; a +d abcd; b send x; d got b x; a ring 12 1234; d ring 12 1234"
        ).replace("123;", "1234;"),
        "both came late": (
            "a join a; a ring 4 12; b join ab; b ring 4 12; a +b ab; b send x; a got b x; a ring 8 12; b ring 8 12"
        ),
        "two of one node": (
            f"{PAIR}; A join aAb; A ring 4 123; a +A aAb; b send x; a got b x; a ring 8 123; A ring 8 123"
        ),
        "equal ones are counted": f"{TOGETHER}; a send x x; a got a x x; b got a x x; c got a x; {ON}",
        "in the second ring": (
            f"{TOGETHER}; {ON}; a send x; a got a x; b got a x; a ring 16 123; b ring 16 123; c ring 16 123"
        ),
    },
}

# All three nodes are there, and four; what tracking begins with may be in the middle of a transition, and counts less.
ONE = "v1 nodes 2 1; v1 no 1; v1 nodes 4 1; v1 no 1"
ALL = "v1 nodes 2 123; v1 yes 123; v1 nodes 4 123; v1 yes 123"
FOUR = "v1 nodes 2 1234; v1 yes 1234; v1 nodes 4 1234; v1 yes 1234"
FIVE = "v1 nodes 2 12345; v1 yes 12345; v1 nodes 4 12345; v1 yes 12345"


def as_node(number: int, script: str) -> str:
    """What another node than 1 was told."""
    return script.replace("v1", f"v{number}")


BAD_QUORUM: dict[str, tuple[str, dict[str, Any]]] = {
    # What is told of.
    "a minority is quorate": (f"{ALL}; v1 nodes 8 1; v1 yes 1 23", {}),
    "a majority is not": (f"{ALL}; v1 nodes 8 12; v1 no 12 3", {}),
    "a minority, says quorum": ("q1 quorum yes 4 1", {}),
    "a majority is not, says quorum": ("q1 quorum no 4 12", {}),
    "members that are not in the ring": (f"{ALL}; v1 nodes 8 12; v1 yes 123", {}),
    "one half": (f"{FOUR}; v1 nodes 8 12; v1 yes 12 34", {"nodes": 4}),
    "votes": (as_node(2, f"{ALL}; v1 nodes 8 23; v1 yes 23 1"), {"votes": {1: 3}}),
    "votes that are enough": (f"{ALL}; v1 nodes 8 1; v1 no 1 23", {"votes": {1: 3}}),
    "expected votes": ("q1 quorum yes 4 123", {"expected_votes": 6}),
    "votes that are set are too few": (as_node(3, f"v1 vote 2 2; {ALL}; v1 nodes 8 3; v1 yes 3 12"), {}),
    "expected votes that are set": (f"{ALL}; v1 expect 5; v1 expected 5; v1 nodes 8 12; v1 yes 12 3", {}),
    "expected votes that are set down": (
        f"{ALL}; v1 nodes 8 12; v1 yes 12 3; v1 expect 2; v1 expected 2; v1 no 12 3",
        {},
    ),
    "votes that are refused": (as_node(2, f"{ALL}; v1 refused 2 5; v1 nodes 8 2; v1 yes 2 13"), {}),
    "two_node": (
        "v1 nodes 2 12; v1 yes 12; v1 nodes 4 12; v1 yes 12; v1 nodes 8 1; v1 no 1 2",
        {"nodes": 2, "two_node": True},
    ),
    "two_node without wait_for_all": ("q1 quorum no 4 1", {"nodes": 2, "two_node": True, "wait_for_all": False}),
    "wait_for_all, and all are there": ("q1 quorum no 4 123", {"wait_for_all": True}),
    "wait_for_all, and too few are there": ("q1 quorum yes 4 1", {"wait_for_all": True}),
    "wait_for_all, and it was quorate": (f"{ALL}; v1 nodes 8 12; v1 no 12 3", {"wait_for_all": True}),
    "wait_for_all, and quorate by a loss": (
        f"{FIVE}; v1 nodes 8 12; v1 no 12 345; v1 nodes 12 1234; v1 no 1234 5; v1 nodes 16 123; v1 yes 123 45",
        {"nodes": 5, "wait_for_all": True},
    ),
    "auto_tie_breaker, without the lowest": (
        as_node(3, f"{FOUR}; v1 nodes 8 34; v1 yes 34 12"),
        {"nodes": 4, "auto_tie_breaker": True},
    ),
    "auto_tie_breaker, with the lowest": (
        f"{FOUR}; v1 nodes 8 12; v1 no 12 34",
        {"nodes": 4, "auto_tie_breaker": True},
    ),
    "auto_tie_breaker, less than half": (f"{FOUR}; v1 nodes 8 1; v1 yes 1 234", {"nodes": 4, "auto_tie_breaker": True}),
    "auto_tie_breaker, without the highest": (
        f"{FOUR}; v1 nodes 8 12; v1 yes 12 34",
        {"nodes": 4, "auto_tie_breaker": True, "auto_tie_breaker_node": "highest"},
    ),
    "auto_tie_breaker, without the first of the list": (
        f"{FOUR}; v1 nodes 8 12; v1 yes 12 34",
        {"nodes": 4, "auto_tie_breaker": True, "auto_tie_breaker_node": "3 1"},
    ),
    "auto_tie_breaker, with the first of the list": (
        as_node(3, f"{FOUR}; v1 nodes 8 34; v1 no 34 12"),
        {"nodes": 4, "auto_tie_breaker": True, "auto_tie_breaker_node": "3 1"},
    ),
    "last_man_standing, and all are there": (f"{ALL}; v1 nodes 8 123; v1 no 123", {"last_man_standing": True}),
    "allow_downscale, and all are there": (f"{ALL}; v1 nodes 8 123; v1 no 123", {"allow_downscale": True}),
    "a quorum device is not enough": (f"{ALL}; v1 nodes 8 1; v1 yes 1 2", {"qdevice_votes": 1, "nodes": 4}),
    "a quorum device is not needed": (f"{ALL}; v1 nodes 8 123; v1 no 123", {"qdevice_votes": 1}),
    # What is asked.
    "another answer of quorum": ("q1 quorum yes 4 123; q1 quorate no", {}),
    "another answer after a change": ("q1 quorum yes 4 123; q1 quorum no 8 1; q1 quorate yes", {}),
    "quorum is off by one": (f"{ALL}; v1 info yes 3 3 3", {}),
    "quorum does not follow": (f"{ALL}; v1 nodes 8 1; v1 no 1 23; v1 info no 1 1 3", {}),
    "too many votes": (f"{ALL}; v1 info yes 4 3 3", {}),
    "too few votes": (f"{ALL}; v1 info yes 2 2 3; v1 expected 3", {}),
    "votes of who does not come": (f"{ONE}; v1 info no 2 2 3; v1 nodes 8 1; v1 no 1 23", {}),
    "votes that come and go in one ring": (
        f"{ONE}; v1 info no 2 2 3; v1 info no 1 2 3; v1 nodes 8 12; v1 yes 12 3",
        {},
    ),
    "votes that come and go, and nothing else": (f"{ONE}; v1 info no 2 2 3; v1 info no 1 2 3", {}),
    "quorate without quorum": (f"{ALL}; v1 nodes 8 1; v1 no 1 23; v1 info yes 1 2 3", {}),
    "not quorate with quorum": (f"{ALL}; v1 info no 3 2 3", {}),
    "two_node needs one": ("v1 nodes 4 12; v1 yes 12; v1 info yes 2 2 2", {"nodes": 2, "two_node": True}),
    "set expected votes": (f"{ALL}; v1 expect 5; v1 expected 5; v1 info yes 3 2 5", {}),
    "a device that does not vote": (f"{ALL}; v1 info yes 4 3 4", {"qdevice_votes": 1}),
}


def cases(scripts: dict[str, Any]) -> list[Any]:
    return [pytest.param(case, id=name) for name, case in scripts.items()]


@pytest.mark.parametrize(
    "rule,script",
    [pytest.param(rule, script, id=f"{rule.value}: {name}") for rule in BAD for name, script in BAD[rule].items()],
)
def test_bad_histories(rule: Rule, script: str) -> None:
    told = history(script)
    violations = check(told, options=ClusterOptions())
    assert {violation.rule for violation in violations} == {rule}, "\n".join(map(str, violations))
    for violation in violations:
        assert set(map(id, violation.evidence)) <= set(map(id, told))
        assert 1 <= len(violation.evidence) <= 5
        assert str(violation).startswith(f"{rule.value}: {violation.text}\n    ")


@pytest.mark.parametrize("case", cases(BAD_QUORUM))
def test_bad_quorum(case: tuple[str, dict[str, Any]]) -> None:
    script, settings = case
    violations = check(history(script), options=ClusterOptions(**settings))
    assert {violation.rule for violation in violations} == {Rule.QUORUM}, "\n".join(map(str, violations))
    assert check(history(script)) == []


# -- good histories ----------------------------------------------------------------------------------------------------

GOOD = {
    "nothing": "",
    "a group": (
        f"{TOGETHER}; a send x; b send y; a got a x; b got a x; c got a x; a got b y; b got b y; c got b y; {ON}"
    ),
    "a part and a meeting": (
        f"{TOGETHER}; {APART}; c send x; c got c x; a send y; a got a y; b got a y; a up c abc; a ring 20 123;"
        " b up c abc; b ring 20 123; c up ab abc; c ring 20 123"
    ),
    # Two changes, one totem change; and what the paused node had sent in the meantime is its own (facts 85 and 86).
    "a node that was paused": (
        f"{TOGETHER}; a send x; a got a x; b got a x; c send y z; a down c ab; a ring 12 12; b down c ab; b ring 12 12;"
        " a up c abc; a ring 20 123; b up c abc; b ring 20 123;"
        " c got c y z; c down ab c; c up ab abc; c ring 20 123"
    ),
    "two nodes that were paused": (
        f"{TOGETHER}; b send x; c send y; b got b x; c got c y; a down bc a; a ring 12 1;"
        " b down ac b; b up ac abc; c down ab c; c up ab abc; a up bc abc; a ring 20 123; b ring 20 123; c ring 20 123"
    ),
    # Node 3 went, and so did its message y, before the others had it; what came behind it had got through.
    "a hole where a node has gone": (
        f"{TOGETHER}; a send x z; c send y; a got a x z; b got a x z; c got a x; c got c y; c got a z; {APART}"
    ),
    "a message that no member has to receive": f"{PAIR}; a send x",
    "the end of a connection": f"{PAIR}; a send x; b !a b; b got b x; b lost x".replace("b got b x; ", ""),
    "a failed call that was none": f"{PAIR}; a maybe x; b got a x; a send y; b got a y; a got a x y",
    "a failed call that was one": f"{PAIR}; a maybe x; a send y; a got a y; a leave; a -a b",
    "sent after leaving": f"{PAIR}; a leave; a send x; a -a b",
    "a loss that was reported": f"{PAIR}; a send x y z; a lost y; a got a x z; b got a x z; a leave; a -a b",
    "equal messages": f"{PAIR}; a send x x; b send x; a got a x; a got b x; a got a x; b got a x; b got b x; b got a x",
    "a member that was not recorded": f"{THREE}; a +d abcd; b +d abcd; a got d x y; b got d x y; a got d x",
    "unknown rings": "a join a; b join ab; a +b ab; a send x; b send y; a got a x; a got b y; b got b y; b got a x",
    "what a member heard after it had left": f"{PAIR}; a leave; a -a b; a got b x; a got b x; a +a ab",
    "two memberships of one process": (
        f"{PAIR}; a send x; a got a x; b got a x; a leave; a -a b; b -a b; a join ab; a ring 4 123; b +a ab;"
        " a send x; a got a x; b got a x"
    ),
    # Who joins while a ring is being formed is told of its id first, and then of its nodes.
    "a join in a transition": (
        "a join a; a ring 4 12; b join ab; b ring 8 12; a +b ab; a ring 8 123; b ring 8 123; c join abc; c ring 8 123"
    ),
    "a join in a transition that we see no end of": "a join a; a ring 4 12; b join ab; b ring 8 12; a ring 8 123",
    "a join in a transition, after another one": (
        "a join a; a ring 4 12; b connect; b ring 4 12; b +b ab; a +b ab; b ring 8 12; b ring 8 123; a ring 8 123"
    ),
    "a join in a transition that was given up": (
        "a join a; a ring 4 12; c join c h; c ring 8 123; b join ab; a +b ab; b ring 8 12; b ring 12 12; a ring 12 12"
    ),
    "a join in a first transition": "v1 nodes 4 1; v1 nodes 8 12; b join b; b ring 8 2 1",
    "told twice of a ring": "a connect; a ring 4 12; a +a a; a ring 4 12; a ring 8 12",
    "who comes late": f"{THREE}; a send x; a got a x; b got a x; d join abcd; d ring 4 123 ".replace("123", "1234"),
    # The library drops a message if it has missed the first fragment.
    "who comes between the fragments of a message": (
        f"{PAIR}; a frag x; c join abc; c ring 4 123; a +c abc; b +c abc; b send w y; a got b w; a got a x; a got b y;"
        " b got b w; b got a x; b got b y; c got b w y; a ring 8 123; b ring 8 123; c ring 8 123"
    ),
    "nodes that meet others between the fragments of a message": (
        f"{PAIR}; c join c; c ring 4 3; a frag x; a up c abc; a ring 8 123; b up c abc; b ring 8 123;"
        " c up ab abc; c ring 8 123; b send w y; a got b w; a got a x; a got b y; c got b w y;"
        " b got b w; b got a x; b got b y; a ring 12 123; b ring 12 123; c ring 12 123"
    ),
    # Totem drops a message if it has missed the first packet.
    "nodes that meet others between the packets of a message": (
        f"{PAIR}; c join c; c ring 4 3; c send x; a up c abc; a ring 8 123; b up c abc; b ring 8 123;"
        " c up ab abc; c ring 8 123; b send w y; a got b w y; b got b w y; c got b w; c got c x; c got b y;"
        " a ring 12 123; b ring 12 123; c ring 12 123"
    ),
    "a ring that votequorum does not tell of": (
        f"v1 nodes 4 123; {PAIR}; a ring 8 123; b ring 8 123; a ring 12 123; b ring 12 123; v1 nodes 12 123"
    ),
    "a member leaves that was not known yet": (
        f"{PAIR}; a !d ab; a up e abe; a ring 8 12345; b !d ab; b up e abe; b ring 8 12345"
    ),
    "two groups": f"{PAIR}; A join A h; A ring 4 123; A send x; A got A x; a send x; a got a x; b got a x",
    "sent again, as it is unknown whether it was sent": f"{PAIR}; a maybe x; a send x y; a got a x y; a leave; a -a b",
    "who joins in vain, and another one of the process is a member": (
        "b join b; a connects; b +a ab; b got a x; a send y; b got a y"
    ),
    "a process that its node forgets in a transition": f"{TOGETHER}; a !c ab; a ring 12 12; b !c ab; b ring 12 12",
    "quorum is tracked from a transition on": (
        "q3 track; q3 list 8 123; q3 quorum no 4 3; q3 list 8 123; q3 quorum yes 8 123"
    ),
    "quorum is tracked from a transition's end on": "q3 track; q3 list 8 123; q3 quorum no 4 3; q3 quorum yes 8 123",
    "the state before the first ring": "q1 quorum no 4 1; v1 nodes 4 1; a join a; a ring 4 1",
}

GOOD_QUORUM: dict[str, tuple[str, dict[str, Any]]] = {
    "parts and meetings": (
        (
            f"{ALL}; v1 info yes 3 2 3; v1 nodes 8 12; v1 yes 12 3; v1 info yes 2 2 3; v1 nodes 12 1; v1 no 1 23;"
            " v1 info no 1 2 3; v1 nodes 16 123; v1 yes 123; q1 quorum yes 16 123; q1 quorate yes"
        ),
        {},
    ),
    "in the middle of a transition": ("v1 nodes 8 12; v1 no 12 3; v1 nodes 8 12; v1 yes 12 3", {}),
    "votes are counted before quorum is": (f"{ALL}; v1 vote 1 4; v1 info yes 6 2 3; v1 info yes 6 4 6", {}),
    "allow_downscale, and fewer are expected": (
        (
            f"{FOUR}; v1 nodes 8 123; v1 yes 123 4; v1 nodes 12 12; v1 no 12 34; v1 nodes 16 123; v1 yes 123 4;"
            " v1 nodes 20 12; v1 yes 12 34; v1 info yes 2 2 3"
        ),
        {"nodes": 4, "allow_downscale": True},
    ),
    "a device's votes, and fewer are set": (
        f"{ALL}; v1 expect 3; v1 expected 3; v1 info no 3 4 6",
        {"qdevice_votes": 3},
    ),
    "allow_downscale, and fewer are set": (
        f"{FOUR}; v1 nodes 8 12; v1 no 12 34; v1 expect 2; v1 expected 2; v1 info no 2 3 4",
        {"nodes": 4, "allow_downscale": True},
    ),
    "last_man_standing, and more were set": (
        f"{FIVE}; v1 nodes 8 1234; v1 yes 1234 5; v1 expect 7; v1 expected 7; v1 info yes 4 3 4",
        {"nodes": 5, "last_man_standing": True},
    ),
    "an answer in a transition": (f"{ALL}; v1 nodes 8 1; v1 info yes 1 2 3; v1 no 1 23", {}),
    "an answer in a transition that tracking begins in": (
        as_node(3, "v1 nodes 8 123; v1 no 3; v1 info no 1 2 3; v1 info no 2 2 3; v1 nodes 8 123; v1 yes 123"),
        {},
    ),
    "tracking that ends in the transition that it begins in": ("v1 nodes 8 12; v1 no 1 23; v1 info no 1 2 3", {}),
    "an answer before a transition is told of": (
        f"{ALL}; v1 info yes 1 2 3; v1 info yes 1 2 3; v1 nodes 8 1; v1 no 1 23",
        {},
    ),
    "who leaves is counted no longer, and quorum was not counted yet, with allow_downscale": (
        f"{ALL}; v1 info yes 1 2 3; v1 nodes 8 1; v1 no 1 23",
        {"allow_downscale": True},
    ),
    "newcomers are counted before the ring is told": (
        f"{ONE}; v1 info no 2 2 3; v1 info yes 2 2 3; v1 nodes 8 12; v1 yes 12 3",
        {},
    ),
    "newcomers who come and go before a ring is told": (
        f"{ONE}; v1 info no 2 2 3; v1 info no 1 2 3; v1 nodes 12 1; v1 no 1 23",
        {},
    ),
    "an answer from who was told of nothing": ("v1 info yes 7 7 7; q1 quorate yes", {}),
    "a change of votes": (as_node(2, f"{ALL}; v1 vote 2 3; v1 info yes 5 3 5; v1 nodes 8 2; v1 yes 2 13"), {}),
    "a change of expected votes": (f"{ALL}; v1 expect 5; v1 info yes 3 2 5; v1 expected 5; v1 info yes 3 3 5", {}),
    "expected votes after a meeting": (
        (
            "v1 nodes 4 12; v1 yes 12 3; v1 expect 2; v1 expected 2; v1 info yes 2 2 2; v1 nodes 8 123; v1 yes 123;"
            " v1 info yes 3 2 3"
        ),
        {},
    ),
    "expected votes that may have been set": ("q1 expect 1; q1 quorum yes 4 1", {}),
    "last_man_standing, and others were given up": ("q1 quorum yes 4 1", {"last_man_standing": True}),
    "a vote that was refused": (f"{ALL}; v1 refused 2 5; v1 info yes 3 2 3", {}),
    "more votes than expected": ("v1 nodes 4 123; v1 yes 123; v1 info yes 3 2 3", {"expected_votes": 2}),
    "two_node": (
        "v1 nodes 4 1; v1 no 1; v1 nodes 8 12; v1 yes 12; v1 nodes 12 1; v1 yes 1 2; v1 info yes 1 1 2",
        {"nodes": 2, "two_node": True},
    ),
    "wait_for_all": (
        (
            "v1 nodes 4 12; v1 no 12 3; v1 info no 2 2 3; v1 nodes 8 123; v1 yes 123; v1 nodes 12 12; v1 yes 12 3;"
            " v1 nodes 16 1; v1 no 1 23; v1 nodes 20 12; v1 no 12 3"
        ),
        {"wait_for_all": True},
    ),
    "wait_for_all, and others are quorate": ("v1 nodes 4 1; v1 no 1; v1 nodes 8 12; v1 yes 12", {"wait_for_all": True}),
    "last_man_standing": (
        f"{ALL}; v1 nodes 8 12; v1 yes 12 3; v1 info yes 2 2 2; v1 nodes 12 1; v1 no 1 23",
        {"last_man_standing": True, "wait_for_all": True},
    ),
    "auto_tie_breaker": (
        f"{FOUR}; v1 nodes 8 12; v1 yes 12 34; v1 info yes 2 3 4; v1 nodes 12 1; v1 no 1 234",
        {"nodes": 4, "auto_tie_breaker": True},
    ),
    "auto_tie_breaker with a list": (
        as_node(3, f"{FOUR}; v1 nodes 8 34; v1 yes 34 12"),
        {"nodes": 4, "auto_tie_breaker": True, "auto_tie_breaker_node": "3 1"},
    ),
    # The others are as many as are needed; so they might be quorate, if they had votes.
    "auto_tie_breaker, and the others are enough": (
        f"{FOUR}; v1 nodes 8 1; v1 no 1 234",
        {"nodes": 4, "votes": {3: 0, 4: 0}, "auto_tie_breaker": True},
    ),
    "allow_downscale": (
        f"{FOUR}; v1 nodes 8 123; v1 yes 123 4; v1 info yes 3 3 3; v1 nodes 12 12; v1 no 12 34",
        {"nodes": 4, "allow_downscale": True},
    ),
    "a quorum device": (
        f"{ALL}; v1 info yes 4 3 4 QDEVICE_CAST_VOTE; v1 nodes 8 12; v1 yes 12 3; v1 nodes 12 12; v1 no 12 3",
        {"qdevice_votes": 1},
    ),
    "a quorum device that is the master": ("v1 wins; v1 nodes 4 1; v1 yes 1", {"qdevice_votes": 1, "nodes": 5}),
    "another configuration": (f"v1 set quorum.expected_votes; {ALL}; v1 nodes 8 1; v1 yes 1 23", {}),
}


@pytest.mark.parametrize("script", cases(GOOD))
def test_good_histories(script: str) -> None:
    assert list(map(str, check(history(script), options=ClusterOptions()))) == []


@pytest.mark.parametrize("case", cases(GOOD_QUORUM))
def test_good_quorum(case: tuple[str, dict[str, Any]]) -> None:
    script, settings = case
    assert list(map(str, check(history(script), options=ClusterOptions(**settings)))) == []


def test_each_rule_has_its_bad_histories() -> None:
    assert {*BAD, Rule.QUORUM} == {*Rule} - {Rule.LINEARIZABILITY}  # which is about applications
    assert len(BAD_QUORUM) >= 8
    assert all(len(scripts) >= 8 for scripts in BAD.values())
