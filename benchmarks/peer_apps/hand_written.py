"""What a good engineer writes: one route, the work on a thread a core; no key, checks or logs.

`uvicorn hand_written:app`, with uvloop and httptools. The threads are its own, since those that
FastAPI has for this are 40, and slower.
"""

from __future__ import annotations

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, UploadFile
from model import Model
from PIL import Image

app = FastAPI()
model = Model()
threads = ThreadPoolExecutor(int(os.environ["PEER_WORKERS"]))


def classify(data: bytes) -> dict[str, Any]:
    """Decode an image and run the model."""
    return model.answer(Image.open(io.BytesIO(data)))


@app.post("/predict")
async def predict(image: UploadFile) -> dict[str, Any]:
    """Classify one image."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, classify, await image.read())
