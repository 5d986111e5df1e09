"""Queries from a model: right ones, wrong ones, and those that write, reach outside or never end."""

import itertools
import os
import sqlite3
import subprocess
import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.types import Status
from mmalign.rewards import functional as F
from mmalign.rewards.text.sql_execution import SqlExecution
from tests.rewards.asking import one, rollout_of, scored

OK, FAIL, ERROR = Status.OK, Status.PARSE_FAIL, Status.ERROR
FILL = "create table pet(name text, age int, weight real); insert into pet values "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("databases")
    rows = {"pets": "('Tom', 3, 4.5), ('Rex', 7, 30.1), ('Ann', 7, null)", "more": "('Tom', 30, 4.5), ('Zoe', 1, 2.0)"}
    for name, values in rows.items():
        (root / name).mkdir()
        with sqlite3.connect(root / name / f"{name}.sqlite") as db:
            db.executescript(FILL + values)
    return root


@dataclass
class Judge:
    """Asks `reward` about one query."""

    reward: SqlExecution

    def __call__(self, output, sql="select name, age from pet", database="pets"):
        scores = self.reward(rollout_of((output, {"sql": sql, "database": database})))
        return scores.value.item(), Status(int(scores.status[0])), (scores.info or [""])[0]


def noting_queries(run, queries):
    """`run`, which first adds the query that it is called with to `queries`."""

    def noted(database, query, seconds=None):
        queries.append(query)
        return run(database, query, seconds)

    return noted


@pytest.fixture(scope="module")
def judge(folder):
    return Judge(SqlExecution(folder=str(folder), seconds=0.4, rows=1000, memory=64))


@pytest.mark.parametrize(
    "output, value",
    [
        ("SELECT name, age FROM pet", 1),
        ("<think>hm</think>```sql\nselect age, name from pet order by age;\n```", 1),
        ("select upper(name), age from pet", 0),
        ("select name from pet", 0),
        ("select name, age from pet limit 2", 0),
        ("select name, age from pet union all select 'x', 1", 0),
        ("select name, age from cat", -0.5),
        ("select nme, age from pet", -0.5),
        ("with x as (select name, age + 0.0 as years from pet) select * from x", 1),
    ],
)
def test_tiers(judge, output, value):
    assert judge(output)[:2] == (value, OK)


@pytest.mark.parametrize(
    "output",
    [
        "", "I do not know", "select name,, age from pet", "select", "select 'a", "select 1; drop table pet",
        "DROP TABLE pet", "delete from pet", "with x as (select 1) insert into pet select 'a', 1, 1",
        "with x as (select 1) delete from pet", "attach '/tmp/x.db' as y", "pragma query_only = 0",
        "vacuum into '/tmp/x'",
        "select load_extension('x')", "select * from pragma_table_list", "select \x00", "select '\ud800' from nowhere",
        "select " + "(" * 90_000, "x" * 2_000_000,
    ],
)  # fmt: skip
def test_what_is_no_query_or_would_do_more_than_read(judge, folder, output):
    files = sorted(path.name for path in (folder / "pets").iterdir())
    content = (folder / "pets" / "pets.sqlite").read_bytes()
    value, status, why = judge(output)
    assert (value, status) == (-1, FAIL) or (value, status) == (-0.5, OK)
    if "(" * 100 not in output:
        assert status is FAIL and why
    assert sorted(path.name for path in (folder / "pets").iterdir()) == files
    assert (folder / "pets" / "pets.sqlite").read_bytes() == content


COUNTING = "with recursive r(n) as (select 1 union all select n + 1 from r) select {} from r"


@pytest.mark.parametrize(
    "output",
    [
        COUNTING.format("count(*)"),
        COUNTING.format("n"),
        "select a.name from pet a, pet b, pet c, pet d, pet e, pet f, pet g, pet h",
        "select randomblob(900000000)",
        "select group_concat(x) from (select hex(zeroblob(4000000)) x from pet a, pet b, pet c)",
        "select instr(zeroblob(9000000), cast(zeroblob(4500000) || x'01' as blob))",  # one step: only a kill ends it
    ],
)
def test_what_never_ends_or_fills_the_memory_fails_in_time(judge, output):
    judge("select 1")  # the process is up
    start = time.monotonic()
    assert judge(output)[:2] == (-0.5, OK)
    assert time.monotonic() - start < 6
    assert judge("select name, age from pet")[:2] == (1, OK)  # and the next row is none the worse


def test_order_counts_only_where_the_right_query_asks_for_it(judge):
    ordered = "select name from pet order by name"
    assert judge("select name from pet order by name", ordered)[0] == 1
    assert judge("select name from pet order by name desc", ordered)[0] == 0
    assert judge("select name from pet order by name desc", "select name from pet")[0] == 1


def test_a_constant_is_found_out_by_a_second_database(judge):
    right = "select count(*) from pet where age > 5"
    assert judge("select 2", right)[0] == 1
    assert judge("select 2", right, ["pets", "more"])[0] == 0
    assert judge("select count(name) from pet where age >= 6", right, ["pets", "more"])[0] == 1


def test_faults_of_the_data_are_ours(judge, folder):
    assert judge("select 1", "select nothing from pet")[1] is ERROR
    value, status, why = judge("select 1", database="dogs")
    assert (
        status is ERROR and value != value and "Prompt.meta['database']: no such file" in why and "dogs.sqlite" in why
    )
    whole = {"sql": "select 1", "database": str(folder / "pets" / "pets.sqlite")}
    scores = scored("sql_execution", ("select 1", whole), ("select 1", {"sql": "select 1"}))
    assert scores.status.tolist() == [OK, Status.NOT_APPLICABLE] and "no 'database'" in scores.info[1]
    assert scores.parts["executes"][0] == 1


def test_right_results_are_remembered_and_the_process_ends_with_its_reward(folder, monkeypatch):
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    mine = SqlExecution(folder=str(folder))
    queries: list[str] = []
    monkeypatch.setattr(mine.process, "run", noting_queries(mine.process.run, queries))
    for _ in range(2):
        assert Judge(mine)("select 1", "select age from pet")[1] is OK
    assert queries == ["select age from pet", "select 1", "select 1"]
    (running,) = started
    assert os.getpgid(running.pid) != os.getpgid(0)  # Ctrl-C does not reach it
    monkeypatch.undo()
    del mine
    assert running.poll() is not None or running.wait(60) is not None


@settings(max_examples=15)
@given(text=st.text(max_size=60) | st.text("select from pet nameage*,()'\"-/;", max_size=60))
def test_any_text_gets_a_status_and_a_value(judge, text):
    value, status, _ = judge(text)
    assert status in (OK, FAIL) and value in (-1, -0.5, 0, 1)
    value, status, _ = judge("select " + text)
    assert status in (OK, FAIL) and value in (-1, -0.5, 0, 1)


# tables ------------------------------------------------------------------------------------------------------------

cells = st.none() | st.integers(0, 2) | st.sampled_from(["a", "1"])
tables = st.integers(1, 3).flatmap(lambda w: st.lists(st.tuples(*[cells] * w), max_size=4))


@settings(max_examples=80)
@given(tables, tables, st.randoms(use_true_random=False))
def test_same_table_equals_trying_every_order_of_columns(first, second, rng):
    if first and rng.random() < 0.5:  # half the time a table that is the same, in disguise
        order = rng.sample(range(len(first[0])), len(first[0]))
        second = [tuple(row[i] for i in order) for row in rng.sample(first, len(first))]

    def key(rows):
        return sorted(map(repr, rows))

    width = len(second[0]) if second else 0
    ways = [key([tuple(row[i] for i in order) for row in second]) for order in itertools.permutations(range(width))]
    expected = len(first) == len(second) and (not first or (len(first[0]) == width and key(first) in ways))
    assert F.same_table(first, second) == F.same_table(second, first) == expected
    assert F.same_table(first, first, ordered=True)


def test_same_table_numbers_types_and_order():
    assert F.same_table([(0.1 + 0.2, "a")], [(0.3, "a")]) and F.same_table([(1,)], [(1.0,)])
    assert not F.same_table([(1,)], [("1",)]) and not F.same_table([(None,)], [(0,)])
    assert not F.same_table([(1.0,)], [(1.001,)]) and F.same_table([(1.0,)], [(1.001,)], tolerance=0.01)
    assert not F.same_table([(1, 2)], [(2, 1)], free_columns=False) and F.same_table([(1, 2)], [(2, 1)])
    rows = [(1, "a"), (2, "b")]
    assert not F.same_table(rows, rows[::-1], ordered=True) and F.same_table(rows, rows[::-1])
    assert not F.same_table([(1, "a"), (2, "b")], [(1, "b"), (2, "a")])
    wide = [tuple(range(12))] * 12
    assert F.same_table(wide, wide)


def test_one_row_through_the_engine(folder):
    meta = {"sql": "select name from pet", "database": "pets"}
    assert one("sql_execution", "select name from pet", meta, folder=str(folder)) == (1, OK)
