"""The service's answers and its form as schemas, for the OpenAPI description. Not for checking a form:
engine/service_form.py, engine/service_options.py."""

from typing import Any

from pydantic import BaseModel, Field

from engine.service_options import MOST_DETECTIONS


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

    id: str
    file: str
    imgsz: list[int] = Field(description="height and width in pixels that pictures are fitted into")
    classes: list[str]
    task: str
    dynamic_layers: list[DynamicLayer]
    parameters: int | None = Field(description="null for exported files")


class LimitsInfo(BaseModel):
    """What a request may ask for."""

    pictures: int
    bytes: int
    pixels: int


class ModelsAnswer(BaseModel):
    """All models, the default first."""

    models: list[ModelInfo]
    limits: LimitsInfo


class Detection(BaseModel):
    """One object."""

    xyxy: list[float] = Field(description="left, top, right, bottom in pixels of the upright picture")
    xyxyn: list[float] = Field(description="the same as fractions of its width and height")
    class_: int = Field(alias="class")
    name: str
    confidence: float


class LayerAttention(BaseModel):
    """How a dynamic layer has mixed its kernels for a picture."""

    layer: str
    weights: list[float] = Field(description="one of each kernel; they add up to 1")


class PictureDetections(BaseModel):
    """What is in one picture, the most confident first."""

    filename: str
    width: int
    height: int
    detections: list[Detection]
    attention: list[LayerAttention] | None = Field(None, description="where asked for, of models with dynamic layers")


class TimingsMs(BaseModel):
    """Milliseconds. Pictures that wait together share a batch, whose time counts once."""

    decode: float
    queue: float
    inference: float
    nms: float
    total: float


class DetectAnswer(BaseModel):
    """The pictures in the order of the request."""

    model: str
    pictures: list[PictureDetections]
    timings_ms: TimingsMs


STATUSES = {
    400: "a value or a body that cannot be used",
    404: "no such model",
    408: "the upload took too long",
    413: "too many bytes, pixels or pictures",
    415: "no picture, or another kind of body",
    422: "a field is missing, unknown or given twice",
    429: "too many pictures are waiting",
    503: "stopping, or busy",
    504: "the answer took too long",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": told} for status, told in STATUSES.items()
}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["pictures"],
                    "properties": {
                        "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "conf": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.25},
                        "iou": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.45},
                        "classes": {"type": "string", "description": "names or numbers, separated by commas"},
                        "model": {"type": "string", "description": "an id of GET /v1/models; default: the first"},
                        "max_det": {"type": "integer", "minimum": 1, "maximum": MOST_DETECTIONS, "default": 300},
                        "attention": {"type": "boolean", "default": False},
                    },
                }
            }
        },
    }
}
