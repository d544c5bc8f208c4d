"""DICOM in, DICOM SEG out: a bundle as an application of MONAI Deploy.

    python app.py --input SERIES --output SEG --model BUNDLE

``BUNDLE`` is the folder of a bundle with ``models/model.pt``; nothing of it is edited. To package the same file as a
container: ``monai-deploy package app.py --config app.yaml --tag NAME:1.0 --model BUNDLE --platform x86_64``.
"""

import json
import logging
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

# Codes of the segments by the name of their class in channel_def; a class without one is called a tissue.
CODES = {"liver": codes.SCT.Liver, "spleen": codes.SCT.Spleen, "kidney": codes.SCT.Kidney}
TISSUE = Code("85756007", "SCT", "Body tissue structure")
RULES = '{"selections": [{"name": "volume", "conditions": {"Modality": "(?i)^(CT|MR)$"}}]}'


class BundleApp(Application):
    """Read a series, let the bundle segment it, write a SEG beside it."""

    def compose(self) -> None:
        """Make the operators and connect them."""
        context = Application.init_app_context(self.argv)
        bundle = Path(context.model_path)
        context.models = None  # of a folder the SDK makes a model that cannot predict; the operator loads model.pt
        source = Path(context.input_path)
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=source, name="load")
        selector = DICOMSeriesSelectorOperator(self, rules=RULES, name="select")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        inference = MonaiBundleInferenceOperator(
            self, app_context=context, bundle_path=bundle, name="bundle",
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
        )
        writer = DICOMSegmentationWriterOperator(
            self, segment_descriptions=segments(bundle), output_folder=Path(context.output_path),
            omit_empty_frames=False,  # viewers misplace segments whose empty frames are left out
            name="write",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, inference, {("image", "image")})
        self.add_flow(selector, writer, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(inference, writer, {("pred", "seg_image")})


def segments(bundle: Path) -> list[SegmentDescription]:
    """Describe each class above background, as ``channel_def`` of the bundle names it."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    classes = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    names = [name for number, name in sorted(classes.items(), key=lambda one: int(one[0])) if int(number)]
    return [
        SegmentDescription(
            segment_label=name, segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=CODES.get(name.lower(), TISSUE), algorithm_name=metadata["name"],
            algorithm_version=metadata["version"],
        )
        for name in names
    ]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    BundleApp().run()
