"""An RTSP camera for tests, of GStreamer: green pictures at rtsp://127.0.0.1:PORT/live. Prints the port, then serves
until it is killed. To be run by Debian's own Python; what it needs, the fixture `rtsp_server` names."""

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PICTURES = (
    "( videotestsrc is-live=true pattern=solid-color foreground-color=0xff00ff00 "
    "! video/x-raw,format=I420,width=160,height=120,framerate=25/1 ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)

if __name__ == "__main__":
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")  # any free port
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PICTURES)
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()
