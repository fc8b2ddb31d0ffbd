"""Read a TFLite file's metadata by MediaPipe's schema: a program for an environment that holds `mediapipe`.

    python read_metadata.py exported/x/mcar-float32.tflite

MediaPipe 1.2's own reader and writer of metadata miss a module that they import; their schema is whole.
"""

import json
import sys
import zipfile
from pathlib import Path

from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema

model = schema.ModelT.InitFromPackedBuf(Path(sys.argv[1]).read_bytes(), 0)
(entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
described = metadata.ModelMetadataT.InitFromPackedBuf(bytes(model.buffers[entry.buffer].data), 0)
(subgraph,) = described.subgraphMetadata
(image,) = subgraph.inputTensorMetadata
(probs,) = (output for output in subgraph.outputTensorMetadata if output.name == b"global_probs")
(normalization,), (labels,) = image.processUnits, probs.associatedFiles
print(
    json.dumps(
        {
            "subgraph": subgraph.name.decode(),
            "is_rgb": image.content.contentProperties.colorSpace == metadata.ColorSpaceType.RGB,
            "mean": normalization.options.mean.tolist(),
            "std": normalization.options.std.tolist(),
            "are_labels": labels.type == metadata.AssociatedFileType.TENSOR_AXIS_LABELS,
            "labels": zipfile.ZipFile(sys.argv[1]).read(labels.name.decode()).decode().splitlines(),
        }
    )
)
