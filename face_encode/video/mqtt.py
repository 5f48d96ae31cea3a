"""Events to an MQTT broker, with what Home Assistant needs to show them by itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from face_encode.errors import InputError, MissingExtraError
from face_encode.version import __version__
from face_encode.video.events import as_json

PASSWORD_VARIABLE = "FACE_ENCODE_MQTT_PASSWORD"

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_BASE = "face_encode"
_DISCOVERY = "homeassistant"
# Messages kept in memory while the broker is away; others are lost.
_MAX_QUEUED = 10_000
_CLOSE_SECONDS = 5.0


def topic_part(source: str) -> str:
    """The part of the topics that names a source: small letters a to z and digits."""
    return re.sub(r"[^a-z0-9]+", "_", source.lower()).strip("_") or "source"


class MqttEvents:
    """Publishes events, and who is there, under ``face_encode/SOURCE/``.

    ==================  ========  ==============================================================
    topic               retained  payload
    ==================  ========  ==============================================================
    ``…/event``         no        each event, as in the file of events
    ``…/people``        yes       ``{"names": [...], "unknown": 0, "count": 1}``: who is there
    ``…/presence``      yes       ``ON`` while somebody is there, else ``OFF``
    ``…/availability``  yes       ``online``; ``offline`` when the program has ended or was lost
    ==================  ========  ==============================================================

    Home Assistant finds three entities by its discovery: presence, people, and the events.
    """

    def __init__(
        self, url: str, source: str, *, report: Callable[[str], None] | None = None
    ) -> None:
        """Connect in the background; what is published until then waits.

        Args:
            url: ``mqtt://`` or ``mqtts://``, then ``user:password@`` if needed, host and port. The
                password may be in the environment instead, ``FACE_ENCODE_MQTT_PASSWORD``.
            source: The source's name; it becomes part of the topics.
            report: Called with a line of text when the broker does not answer, refuses or is lost,
                and when it is there; from another thread.

        Raises:
            InputError: No such address.
            MissingExtraError: paho-mqtt is not installed.
        """
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise MissingExtraError(
                'MQTT needs paho-mqtt: pip install "face_encode[mqtt]"'
            ) from error
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            host = port = None
        if not host or port is None or parts.scheme not in _PORTS or parts.path not in ("", "/"):
            raise InputError("an MQTT broker's address is mqtt:// or mqtts:// with host and port")
        self._name = f"MQTT broker {host}"
        self._report = (lambda text: None) if report is None else report
        slug = topic_part(source)
        self._slug, self._source, self._topic = slug, source, f"{_BASE}/{slug}"
        self._there: dict[str, str | None] = {}
        self._is_away = self._is_full = False
        self._client = client = Client(CallbackAPIVersion.VERSION2, client_id="")
        if parts.username:
            password = unquote(parts.password) if parts.password else None
            client.username_pw_set(
                unquote(parts.username), password or os.environ.get(PASSWORD_VARIABLE)
            )
        if parts.scheme == "mqtts":
            client.tls_set()
        client.max_queued_messages_set(_MAX_QUEUED)
        client.will_set(f"{self._topic}/availability", "offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.connect_async(host, port)
        client.loop_start()
        self._publish_people()

    def write(self, event: Mapping[str, Any]) -> None:
        """Publish an event, and who is there after it."""
        kind, name = event["event"], event.get("id")
        if kind in ("arrived", "renamed"):
            self._there[str(name)] = event["name"]
        elif kind == "left":
            self._there.pop(str(name), None)
        else:
            self._there.clear()
        self._publish("event", as_json(event))
        self._publish_people()

    def close(self) -> None:
        """Say that nobody watches any more, and disconnect."""
        last = self._client.publish(f"{self._topic}/availability", "offline", qos=1, retain=True)
        if self._client.is_connected():
            # Too many messages wait, or the broker was lost just now.
            with suppress(ValueError, RuntimeError):
                last.wait_for_publish(_CLOSE_SECONDS)
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish below the source's topic, at least once."""
        from paho.mqtt.enums import MQTTErrorCode

        sent = self._client.publish(f"{self._topic}/{topic}", payload, qos=1, retain=retain)
        is_full = sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        if is_full and not self._is_full:
            self._report(f"{self._name}: {_MAX_QUEUED} messages wait for it; others are lost")
        self._is_full = is_full

    def _publish_people(self) -> None:
        """Publish who is there."""
        # The client's thread asks for this, too.
        there = list(self._there.values())
        names = sorted({name for name in there if name is not None})
        people = {"names": names, "unknown": there.count(None), "count": len(there)}
        self._publish("people", json.dumps(people, ensure_ascii=False), retain=True)
        self._publish("presence", "ON" if there else "OFF", retain=True)

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        """Introduce the source, or tell why the broker refuses."""
        if reason.is_failure:
            self._report(f"{self._name}: refuses the connection: {reason}")
            return
        self._is_away = False
        self._report(f"{self._name}: connected")
        for kind, key, more_settings in _ENTITIES:
            settings = {
                "name": key.capitalize(),
                "unique_id": f"{_BASE}_{self._slug}_{key}",
                "availability_topic": f"{self._topic}/availability",
                "device": {
                    "identifiers": [f"{_BASE}_{self._slug}"],
                    "name": f"face_encode {self._source}",
                    "sw_version": __version__,
                },
                **{
                    name: f"{self._topic}/{value}" if name.endswith("_topic") else value
                    for name, value in more_settings.items()
                },
            }
            topic = f"{_DISCOVERY}/{kind}/{_BASE}_{self._slug}/{key}/config"
            client.publish(topic, json.dumps(settings), qos=1, retain=True)
        client.publish(f"{self._topic}/availability", "online", qos=1, retain=True)
        # What was published last may be among the messages that found no room.
        self._publish_people()

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        """Tell, once, that there is no connection; the client tries again by itself."""
        if not self._is_away:
            self._report(f"{self._name}: does not answer; trying again")
        self._is_away = True

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        """Tell that the broker was lost; the client connects again by itself."""
        if reason.is_failure:
            self._is_away = True
            self._report(f"{self._name}: lost ({reason}); trying again")


# Kind, name and further settings of each entity, as Home Assistant's MQTT discovery wants them.
_ENTITIES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    (
        "binary_sensor",
        "presence",
        {"state_topic": "presence", "device_class": "occupancy"},
    ),
    (
        "sensor",
        "people",
        {
            "state_topic": "people",
            "json_attributes_topic": "people",
            # A state may have 255 characters.
            "value_template": "{{ (value_json.names | join(', ') or value_json.count)"
            " | string | truncate(250, true) }}",
            "icon": "mdi:face-recognition",
        },
    ),
    (
        "event",
        "events",
        {
            "state_topic": "event",
            "event_types": ["started", "arrived", "renamed", "left", "stopped"],
            "value_template": "{{ dict(value_json, event_type=value_json.event) | tojson }}",
        },
    ),
)
