"""A tiny dynamic network, for tests of several folders that build, train or serve one."""

CFG = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.125,
    "anchors": [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]],
    "backbone": [
        [-1, 1, "Conv", [64, 6, 2, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "C3", [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "Dynamic_conv2d", [256, 1, 1]],
    ],
    "head": [[-1, 1, "Conv", [256, 3, 2]], [[4, 5], 1, "Detect", ["nc", "anchors"]]],
}
