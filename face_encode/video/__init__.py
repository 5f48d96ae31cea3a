"""Faces followed and named in cameras, streams and video files."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.video.events import EventFile as EventFile
    from face_encode.video.events import EventSink as EventSink
    from face_encode.video.events import PrintedEvents as PrintedEvents
    from face_encode.video.events import Webhook as Webhook
    from face_encode.video.events import signature_is_right as signature_is_right
    from face_encode.video.frames import Frame as Frame
    from face_encode.video.frames import WatchedFace as WatchedFace
    from face_encode.video.frames import WatchedFrame as WatchedFrame
    from face_encode.video.mqtt import MqttEvents as MqttEvents
    from face_encode.video.output import Recorder as Recorder
    from face_encode.video.output import Window as Window
    from face_encode.video.output import draw_watched as draw_watched
    from face_encode.video.presence import Appearance as Appearance
    from face_encode.video.presence import AppearanceLog as AppearanceLog
    from face_encode.video.presence import PresenceEvent as PresenceEvent
    from face_encode.video.presence import Strangers as Strangers
    from face_encode.video.session import Outlets as Outlets
    from face_encode.video.session import Session as Session
    from face_encode.video.session import SessionReport as SessionReport
    from face_encode.video.sources import Source as Source
    from face_encode.video.sources import open_source as open_source
    from face_encode.video.watcher import Watcher as Watcher
    from face_encode.video.watcher import WatchSettings as WatchSettings
    from face_encode.video.watcher import watch as watch

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "events": ["EventFile", "EventSink", "PrintedEvents", "Webhook", "signature_is_right"],
        "frames": ["Frame", "WatchedFace", "WatchedFrame"],
        "mqtt": ["MqttEvents"],
        "output": ["Recorder", "Window", "draw_watched"],
        "presence": ["Appearance", "AppearanceLog", "PresenceEvent", "Strangers"],
        "session": ["Outlets", "Session", "SessionReport"],
        "sources": ["Source", "open_source"],
        "watcher": ["WatchSettings", "Watcher", "watch"],
    },
)
