import dataclasses

import pytest

from pipelines.typed import from_json


@dataclasses.dataclass(frozen=True)
class Wheel:
    radius: float


@dataclasses.dataclass(frozen=True)
class Car:
    name: str
    wheels: tuple[Wheel, ...]
    seats: int = 4
    owner: str | None = None
    extras: dict[str, int] = dataclasses.field(default_factory=dict)


def test_values_of_the_declared_types_make_the_dataclass():
    value = {"name": "x", "wheels": [{"radius": 1}, {"radius": 0.5}], "owner": None, "extras": {"horn": 2}}
    assert from_json(Car, value, "f") == Car("x", (Wheel(1.0), Wheel(0.5)), owner=None, extras={"horn": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "cars.json: `name` must be a text. Received: 1"),
        ({"seats": True}, "cars.json: `seats` must be a whole number. Received: True"),
        ({"seats": 2**63}, "cars.json: `seats` must be a whole number. Received: 9223372036854775808"),
        ({"wheels": "round"}, "cars.json: `wheels` must be a list. Received: 'round'"),
        ({"wheels": [{"radius": 1}, 3]}, "cars.json: `wheels[1]` must be an object. Received: 3"),
        (
            {"wheels": [{"radius": float("nan")}]},
            "cars.json: `wheels[0].radius` must be a number. Received: nan",
        ),
        ({"wheels": [{}]}, "cars.json: `wheels[0].radius` is missing."),
        ({"extras": {"horn": "loud"}}, "cars.json: `extras.horn` must be a whole number. Received: 'loud'"),
        ({"doors\n": 2}, "cars.json: `doors\\n` is no field that we know."),
    ],
)
def test_a_value_of_another_type_is_named(change, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        from_json(Car, {"name": "x", "wheels": []} | change, "cars.json")
    assert str(caught.value) == message


def test_what_is_no_object_at_all_is_named_by_its_file():
    with pytest.raises(ValueError, match=r"^cars.json: it must be an object. Received: \[\]$"):
        from_json(Car, [], "cars.json")


def test_a_field_that_is_given_is_not_taken_from_the_file():
    assert from_json(Wheel, {}, "f", radius=2.0) == Wheel(2.0)
    with pytest.raises(ValueError, match="`radius` is no field"):
        from_json(Wheel, {"radius": 1}, "f", radius=2.0)
