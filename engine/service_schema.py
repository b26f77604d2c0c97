"""The service's answers, its form and calls to copy, for the OpenAPI description. Not for checking a form:
engine/service_form.py, engine/service_options.py."""

from typing import Any

from pydantic import BaseModel, Field

from engine.service_docs import SAMPLE_ADDRESS
from engine.service_options import MOST_DETECTIONS, DetectOptions


class Health(BaseModel):
    """Whether the service answers."""

    status: str = Field(examples=["ok"])


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="one sentence: what was expected, what was got")


class DynamicLayer(BaseModel):
    """A dynamic convolution."""

    name: str = Field(examples=["model.3"])
    kernels: int


class ModelInfo(BaseModel):
    """A model that can be asked."""

    id: str = Field(description="what the field model of a request takes: the file's name, behind that of its run")
    file: str = Field(description="the file's name, without its folder")
    imgsz: list[int] = Field(description="height and width in pixels that pictures are fitted into")
    classes: list[str] = Field(description="their names, by number")
    task: str = Field(examples=["detect"])
    dynamic_layers: list[DynamicLayer]
    parameters: int | None = Field(description="null for exported files")


class LimitsInfo(BaseModel):
    """What a request may ask for."""

    pictures: int = Field(description="of one request")
    bytes: int = Field(description="of its body")
    pixels: int = Field(description="of one picture")


class ModelsAnswer(BaseModel):
    """All models, the default first."""

    models: list[ModelInfo]
    limits: LimitsInfo


class Detection(BaseModel):
    """One object."""

    xyxy: list[float] = Field(
        description="left, top, right, bottom in pixels of the upright picture, to a hundredth of a pixel"
    )
    xyxyn: list[float] = Field(description="the same as fractions of its width and height, to six places")
    class_: int = Field(alias="class", description="its number")
    name: str = Field(description="of the class")
    confidence: float = Field(
        description="as the network gives it, not rounded: those above 0.4 are those of a request with conf=0.4"
    )


class LayerAttention(BaseModel):
    """How a dynamic layer has mixed its kernels for a picture."""

    layer: str
    weights: list[float] = Field(description="one of each kernel; they add up to 1")


class PictureDetections(BaseModel):
    """What is in one picture, the most confident first."""

    filename: str = Field(description="as sent, without folders and control characters")
    width: int = Field(description="pixels of the upright picture")
    height: int
    truncated: bool = Field(description="the file ends too early: what is missing of the picture is grey")
    detections: list[Detection]
    attention: list[LayerAttention] | None = Field(None, description="where asked for, of models with dynamic layers")


class TimingsMs(BaseModel):
    """Milliseconds. Pictures that wait together share a batch, whose time counts once."""

    decode: float = Field(description="from the files to pictures of the network's size")
    queue: float = Field(description="until the batch began, of the picture that waited longest")
    inference: float = Field(description="of the batches that the pictures were in")
    nms: float = Field(description="non-maximum suppression")
    total: float = Field(description="from the request's head to its answer, the upload included")


class DetectAnswer(BaseModel):
    """The pictures in the order of the request."""

    model: str
    pictures: list[PictureDetections]
    timings_ms: TimingsMs


ANSWER: dict[str, Any] = {
    "model": "exp/best",
    "pictures": [
        {
            "filename": "bus.jpg",
            "width": 810,
            "height": 1080,
            "truncated": False,
            "detections": [
                {
                    "xyxy": [51.09, 394.54, 223.21, 902.69],
                    "xyxyn": [0.063075, 0.365316, 0.27557, 0.835828],
                    "class": 0,
                    "name": "person",
                    "confidence": 0.8378810882568359,
                }
            ],
            "attention": [{"layer": "model.3", "weights": [0.31, 0.22, 0.27, 0.2]}],
        }
    ],
    "timings_ms": {"decode": 9.1, "queue": 0.4, "inference": 52.7, "nms": 1.1, "total": 66.0},
}
STATUSES = {
    400: "a value or a body that cannot be used, a Host that is not this machine's",
    403: "another page's request: only this service's own page may send some",
    404: "no such model or path",
    405: "another method than the path takes",
    408: "the upload took too long",
    413: "too many bytes, pixels or pictures",
    415: "no picture, or another kind of body",
    422: "a field is missing, unknown or given twice",
    429: "too many pictures are waiting: try again later",
    431: "too many headers",
    500: "a fault of the service, which its log tells",
    503: "stopping, or too many uploads in memory: try again later",
    504: "decoding, or the model, took too long",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": told} for status, told in STATUSES.items()
}


def _sample(lang: str, source: str) -> dict[str, str]:
    return {"lang": lang, "source": source.strip()}


DEFAULTS = DetectOptions()
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
FIELDS: dict[str, dict[str, Any]] = {
    "pictures": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "BMP, JPEG, PNG, TIFF or WebP; each in a field of this name",
    },
    "conf": {**SHARE, "default": DEFAULTS.conf, "description": "confidence that a detection must exceed"},
    "iou": {
        **SHARE,
        "default": DEFAULTS.iou,
        "description": "of two boxes of a class that overlap by more, the surer one is kept",
    },
    "classes": {
        "type": "string",
        "x-default": "all",
        "description": "names or numbers of the classes to look for, separated by commas",
    },
    "model": {"type": "string", "x-default": "the first", "description": "an id that GET /v1/models tells"},
    "max_det": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_DETECTIONS,
        "default": DEFAULTS.max_det,
        "description": "detections of a picture, the most confident ones",
    },
    "attention": {
        "type": "boolean",
        "default": DEFAULTS.attention,
        "description": "tell how each dynamic layer has mixed its kernels",
    },
}
PYTHON = f"""
import requests

with open("bus.jpg", "rb") as picture:
    answer = requests.post(
        "{SAMPLE_ADDRESS}/v1/detect", files=[("pictures", picture)], data={{"conf": 0.4}}, timeout=60
    )
if not answer.ok:
    raise SystemExit(answer.json()["error"])
for found in answer.json()["pictures"]:
    for box in found["detections"]:
        print(found["filename"], box["name"], box["confidence"], box["xyxy"])
"""
SHELL = f"""
curl -F pictures=@bus.jpg {SAMPLE_ADDRESS}/v1/detect
curl -F pictures=@a.jpg -F pictures=@b.png -F conf=0.4 -F classes=person,5 {SAMPLE_ADDRESS}/v1/detect
"""
DETECTED: dict[str, Any] = {"model": DetectAnswer, "content": {"application/json": {"example": ANSWER}}}
DETECT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["pictures"], "properties": FIELDS},
            }
        },
    },
    "x-codeSamples": [_sample("curl", SHELL), _sample("Python", PYTHON)],
}
MODELS = {"x-codeSamples": [_sample("curl", f"curl {SAMPLE_ADDRESS}/v1/models")]}
HEALTH = {"x-codeSamples": [_sample("curl", f"curl {SAMPLE_ADDRESS}/healthz")]}
