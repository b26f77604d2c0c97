"""Non-maximum suppression as a part of an ONNX graph, behind the network. In Python it is in utils/nms.py, whose
detections these are."""

from typing import TYPE_CHECKING

from models.export_options import Suppression
from utils.nms import MAX_SIDE, MIN_SIDE

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# A graph in ONNX's own language (onnx.parser): decoded (B, N, 5 + nc) -> output (B, K, 6) [x1, y1, x2, y2, confidence,
# class], the most confident detection first. K is the most detections that an image may have, or N where that is less.
# An image with fewer detections has rows of confidence 0 behind them. Reshape, TopK and Slice stand where shorter
# operators differ between opsets.
GRAPH = """
<ir_version: {ir_version}, opset_import: ["": {opset}]>
suppression (float[{batch}, {boxes}, {columns}] decoded) => (float[{batch}, {found}, 6] output)
<
  int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[1] i2 = {{2}}, int64[1] i4 = {{4}}, int64[1] i5 = {{5}},
  int64[1] end = {{9223372036854775807}}, int64[2] flat = {{0, -1}}, int64[3] column = {{0, -1, 1}},
  int64[3] rows_of_five = {{1, 1, 5}}, int64[2] image_and_box = {{0, 2}}, int64[1] depth = {{{nc}}},
  float[2] off_and_on = {{0, 1}}, float half = {{0.5}}, float zero = {{0}},
  float least_side = {{{least_side}}}, float largest_side = {{{largest_side}}},
  int64[1] topk_per_class = {{{topk_per_class}}}, int64[1] topk_all = {{{topk_all}}},
  float[1] iou_thres = {{{iou_thres}}}, float[1] conf_thres = {{{conf_thres}}}
>
{{
  xywh = Slice(decoded, i0, i4, i2)
  xy = Slice(decoded, i0, i2, i2)
  wh = Slice(decoded, i2, i4, i2)
  objectness = Slice(decoded, i4, i5, i2)
  probabilities = Slice(decoded, i5, end, i2)
  scores = Mul(probabilities, objectness)
  best, label = TopK <axis = 2> (scores, i1)

  clipped = Clip(wh, least_side, largest_side)
  fits = Equal(wh, clipped)
  fits_w = Slice(fits, i0, i1, i2)
  fits_h = Slice(fits, i1, i2, i2)
  usable = And(fits_w, fits_h)
  usable_as_factor = Cast <to = 1> (usable)
  confidence_column = Mul(best, usable_as_factor)
  confidence = Reshape(confidence_column, flat)

{scores_by_class}
  selected = NonMaxSuppression <center_point_box = 1> (xywh, by_class, topk_per_class, iou_thres, conf_thres)
  places = Gather <axis = 1> (selected, image_and_box)
  values = GatherND(confidence, places)
  nothing = Mul(confidence, zero)
  kept = ScatterND(nothing, places, values)

  shape = Shape(confidence)
  count = Gather(shape, i1)
  most = Min(count, topk_all)
  top, index = TopK <axis = 1> (kept, most)

  half_wh = Mul(wh, half)
  low = Sub(xy, half_wh)
  high = Add(xy, half_wh)
  label_column = Cast <to = 1> (label)
  rows = Concat <axis = 2> (low, high, label_column)
  index_column = Reshape(index, column)
  index_rows = Tile(index_column, rows_of_five)
  top_rows = GatherElements <axis = 1> (rows, index_rows)
  xyxy = Slice(top_rows, i0, i4, i2)
  top_label = Slice(top_rows, i4, i5, i2)
  top_column = Reshape(top, column)
  output = Concat <axis = 2> (xyxy, top_column, top_label)
}}
"""
ONE_FOR_ALL = """\
  by_class = Transpose <perm = [0, 2, 1]> (confidence_column)
"""
OF_EACH_CLASS = """\
  flat_label = Reshape(label, flat)
  of_class = OneHot <axis = 1> (flat_label, depth, off_and_on)
  confidence_row = Transpose <perm = [0, 2, 1]> (confidence_column)
  by_class = Mul(of_class, confidence_row)
"""


def with_suppression(network: "ModelProto", nms: Suppression) -> "ModelProto":
    """A model with suppression behind the network. network: one whose output is decoded predictions. The new output is
    detections (B, K, 6) [x1, y1, x2, y2, confidence, class] in pixels of the images, as described at GRAPH. A box is
    of its best class alone."""
    import onnx

    batch, boxes, columns = _dimensions(network.graph.output[0])
    graph = GRAPH.format(
        ir_version=network.ir_version,
        opset=next(entry.version for entry in network.opset_import if not entry.domain),
        batch=batch,
        boxes=boxes,
        columns=columns,
        found=min(boxes, nms.topk_all) if isinstance(boxes, int) else "found",
        nc=columns - 5,
        least_side=float(MIN_SIDE),
        largest_side=float(MAX_SIDE),
        topk_per_class=nms.topk_all if nms.agnostic else nms.topk_per_class,
        topk_all=nms.topk_all,
        iou_thres=nms.iou_thres,
        conf_thres=nms.conf_thres,
        scores_by_class=ONE_FOR_ALL if nms.agnostic else OF_EACH_CLASS,
    )
    suppression = onnx.compose.add_prefix(onnx.parser.parse_model(graph), "nms_")
    joined = onnx.compose.merge_models(network, suppression, io_map=[(network.graph.output[0].name, "nms_decoded")])
    _rename_output_(joined, network.graph.output[0].name)
    return joined


def _dimensions(output: "ValueInfoProto") -> tuple[int | str, int | str, int]:
    """Batch, boxes and columns, the free ones as names."""
    batch, boxes, columns = output.type.tensor_type.shape.dim
    return (
        batch.dim_value if batch.HasField("dim_value") else "batch",
        boxes.dim_value if boxes.HasField("dim_value") else "boxes",
        columns.dim_value,
    )


def _rename_output_(joined: "ModelProto", name: str) -> None:
    """Calls the output of the suppression what the network's was called, in place; that one becomes `decoded`."""
    last = joined.graph.output[0].name
    for node in joined.graph.node:
        for names in (node.input, node.output):
            names[:] = [{name: "decoded", last: name}.get(entry, entry) for entry in names]
    joined.graph.output[0].name = name
