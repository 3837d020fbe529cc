"""Typed encode and decode: how a Python value becomes stored text, and comes back as what it was.

The rule: **code always receives decode(encode(value))**, also the first time, so that a first run and a replay see the
same typed objects. What does not come back equal in value and in type fails at once, naming the path.

* The annotation decides. Without one (or with `Any`, `dict`, `list`) a value is plain JSON, in exactly JSON's types; a
  tuple, a date or a dataclass needs an annotation that says so.
* Types are taken exactly: a subclass where its base is annotated is refused, because its own part would be lost; a bool
  is not an int. One thing widens: an int returned for `float` arrives as the equal float.
* Bytes become base64 text, also in dataclasses, typed dicts and named tuples. A pydantic model (and a dataclass with a
  configuration of its own) follows its configuration, which is UTF-8 unless it says otherwise: other bytes are refused.
* Dates and times are ISO 8601 text, durations too, decimals text. A zone's offset is kept, its name is not.
* Fields are stored under their names, not under aliases. Private attributes of a model are not stored: a model whose
  private attributes would come back otherwise is refused.
* A union of types that look alike in JSON (`date | str`, two classes with the same fields) is accepted as long as the
  value comes back as its own type.

Called by the engine for steps, by the agents for inputs and outputs, and by the doors. It imports pydantic at first use
of an annotation that needs it, never before. It knows no store.
"""

from stepwell.codec.annotations import codec_for, decode_input, encode_input, json_schema
from stepwell.codec.codec import Codec
from stepwell.codec.fingerprints import fingerprint

__all__ = [
    "Codec",
    "codec_for",
    "decode_input",
    "encode_input",
    "fingerprint",
    "json_schema",
]
