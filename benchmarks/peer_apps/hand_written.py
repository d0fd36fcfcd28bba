"""What a good engineer writes: one route, the work in the thread pool; no key, checks or logs.

`uvicorn hand_written:app`, with uvloop and httptools.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, UploadFile
from model import Model
from starlette.concurrency import run_in_threadpool

app = FastAPI()
model = Model()


@app.post("/predict")
async def predict(image: UploadFile) -> dict[str, Any]:
    """Classify one image."""
    return await run_in_threadpool(model.answer, await image.read())
