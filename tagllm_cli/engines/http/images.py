"""One image on its way to the servers: encoded once, sent to vLLM once per server, named by its uuid afterwards.

vLLM keeps what it made of an image (4 GiB by default). A request may name such an image by its uuid, without pixels;
what vLLM does not have any more is refused with status 400 ("Cache miss for image").
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from tagllm_cli.engines.http.protocol import encode_image
from tagllm_cli.engines.http.server import Server
from tagllm_cli.records import DecodedImage

_SMALL = 1 << 16  # bytes of a file that are encoded at once instead of in a thread


@dataclass(slots=True)
class SharedImage:
    """The JSON of an image's message part, for all of its requests.

    Args:
        part: with pixels, as any server takes it.
        uuid: names the image and how it was decoded.
        held_by: the servers that have seen the pixels under the uuid.
        lead_ended: set when the request that goes ahead of the others has ended.
    """

    part: bytes
    uuid: str
    held_by: set[Server] = field(default_factory=set)
    lead_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def part_for(self, server: Server, *, with_pixels: bool) -> bytes:
        """Return the part for a server."""
        if not server.takes_uuids:
            return self.part
        uuid = json.dumps(self.uuid).encode()
        if not with_pixels:
            return b'{"type":"image_url","image_url":null,"uuid":' + uuid + b"}"
        return self.part[:-1] + b',"uuid":' + uuid + b"}"


async def share_image(decoded_image: DecodedImage) -> SharedImage:
    """Encode an image; in a thread where that takes long."""
    encoded = decoded_image.encoded
    if encoded is not None and len(encoded) < _SMALL:
        part = encode_image(decoded_image)
    else:
        part = await asyncio.to_thread(encode_image, decoded_image)
    return SharedImage(part, decoded_image.uuid)
