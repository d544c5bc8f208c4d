"""Words that stand in paths of scans without naming anybody.

A patient called like one of them is hidden by the other name, the identifier and the date.
"""

NEUTRAL_WORDS = frozenset(
    """
    abdomen acq adc adni af age all ana anat anatomy angio anon anonym anonymised anonymized anonymous
    archive arm art arterial atlas atrium ax axial b0 b1000 bad baseline bids body bold bone brain brats
    bravo breast btcv c canon cardiac cardio case cases ce center centre cervical chest cine clean clinical
    cohort contrast control cor coronal crop ct cta cube cv data dataset delay derived dicom dicomdir dicoms
    dir disc dixon dti dual dwi dyn ecg echo edema endo enhanced ep epi exam example export exports
    extremity fast fat fatsat field fieldmap fiesta file files film first fl flair flash follow followup
    foot fov frame fs fse fuji full func gd ge gre group hand hast haste head heart hip hippocampus hitachi
    hospital im image images imagestr imagests imaging img imgs in index input ir irm isotropic kidney knee
    label labelled labels labelstr left leg lesion liver loc localiser localizer long low lumbar lung lungs
    map mask masks mci mean medical medium mip moco mosaic motion mp2rage mpr mprage mr mra mri msd multi
    native neck neuro new nifti nii noise non none normal of old oph opp opposed original other out output
    pancreas part pat patient patients pd pelvis perf perfusion pet phantom phase philips pilot plain plane
    portal post pre primary prod project prostate proton public pulmonary qa qc r raw rec recon reg
    registered renal report rest results rf right room run sag sagittal sample sc scan scanner scans scout
    se second secondary seg segmentation sense sequence ser serie series ses set setter shared short
    shoulder siemens site slab slice slices small smooth soft space spgr spin spine spiral spleen split
    spoiled ssfp star stir stroke structural studies study sub subject subjects subset sum survey swi
    systems t tagged tair task te temp test testing the thick thin thoracic thorax ti time tissue tof
    topogram toshiba tr trace train training trauma ts tse tumor tumour turbo ultra united unlabeled
    unlabelled upper us val validation vein venous vertebra vessel vessels vibe view vol volume volumes w wb
    weighted whole wip with without work wrist xa
    """.split()  # noqa: SIM905 - a list of four hundred literals is harder to read
)
