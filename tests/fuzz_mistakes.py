"""One thing wrong with a call, most often: what it does has to be an error that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.fuzz_calls import Drawing

# the most regions and the like that there may be, more than this machine has memory for
ENORMOUS = 2**31 - 2
NUMBERS = (
    *(
        -1,
        0,
        1,
        7,
        ENORMOUS,
        2**31 - 1,
        2**31,
        2**32 + 5,
        2**40,
        2**62,
        2**63 - 1,
        2**63,
        -(2**63),
        10**400,
    ),
    *(1.5, -2.0, float("nan"), float("inf"), -float("inf"), 1e300, 5e-324),
    *("3", "", None, True, False, [1, 2], {"tuple": [1]}, {"strange": "tensor"}),
)
OPTIONS = (
    *("bogus", "", None, 0, 1, 2, 2.0, True, [], {"tuple": []}),
    *({"strange": "tensor"}, {"strange": "array"}, {"strange": "object"}),
)
OBJECTS = (
    *(None, 3, 2.5, "features", [], [[1.0, 2.0]], {"tuple": [1, 2]}),
    *(
        {"strange": name}
        for name in ("ndarray", "sparse", "sparse matrix", "nested", "quantized", "object")
    ),
)
DTYPES = (
    *("float16", "float32", "float64", "complex64", "float8_e4m3fn"),
    *("int64", "int8", "uint8", "bool", "uint16"),
)
ARRAY_DTYPES = ("complex128", "O", "U3", "datetime64[s]", "longdouble", "float32", "int64")


def is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and ("kind" in value or "array" in value)


def spoil(d: Drawing, call: dict[str, Any]) -> dict[str, Any]:
    args, kwargs = list(call["args"]), dict(call["kwargs"])
    call = {**call, "args": args, "kwargs": kwargs, "valid": False}
    what = d.one_of(*["an argument"] * 8, "backend", "missing", "unknown", "meta")
    if what == "backend":
        kwargs["backend"] = d.one_of(
            "cuda", "triton", "fast", "", 5, True, [], {"strange": "array"}
        )
    elif what == "missing" and args:
        args.pop(d.draw(st.integers(0, len(args) - 1)))
    elif what == "unknown":
        kwargs[d.one_of("reduction_", "num_region", "group", "out")] = d.one_of(None, 3, "x")
    elif what == "meta":
        call["valid"] = "meta"
    else:
        places = [*((args, i) for i in range(len(args))), *((kwargs, name) for name in kwargs)]
        holder, key = d.one_of(*places)
        holder[key] = spoiled(d, holder[key])
        if holder[key] == ENORMOUS:
            # eager goes through regions one by one
            call["enormous"], kwargs["backend"] = True, "cpu"
    return call


def spoiled(d: Drawing, value: Any) -> Any:
    if not is_tensor(value):
        return d.one_of(*(OPTIONS if isinstance(value, str) else NUMBERS))
    what = d.one_of("dtype", "dtype", "shape", "shape", "shape", "device", "values", "object")
    if what == "object" or value["kind" if "kind" in value else "array"] == "number":
        return d.one_of(*OBJECTS)
    if "array" in value:
        if what == "shape":
            return {**value, "array": reshaped(d, value["array"])}
        return {**value, "dtype": d.one_of(*ARRAY_DTYPES)}
    if what == "dtype":
        return {**value, "dtype": d.one_of(*DTYPES), "layout": "contiguous"}
    if what == "shape":
        return reshaped(d, value)
    if what == "device":
        return {**value, "device": "meta"}
    # labels that no pixel should have, weights below 0
    return {**value, "values": "negative", "low": -5, "high": d.one_of(-1, 3, 10**6)}


def reshaped(d: Drawing, value: dict[str, Any]) -> dict[str, Any]:
    shape = list(value["shape"])
    match d.one_of("less", "more", "other", "other", "none", "swapped"):
        case "less":
            shape = shape[1:]
        case "more":
            shape = [*shape, d.one_of(1, 2)]
        case "none":
            shape = []
        case "swapped":
            shape = shape[::-1]
        case _ if shape:
            i = d.draw(st.integers(0, len(shape) - 1))
            shape[i] = d.one_of(0, 1, shape[i] + 1, max(shape[i] - 1, 0))
    return {**value, "shape": shape}
