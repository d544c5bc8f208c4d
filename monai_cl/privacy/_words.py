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

# Words of anatomy and disease, as classes of public data sets have them.
_ANATOMY = """
    abdominal abscess accumbens acetabulum acromion adenoma adipose adrenal airway airways aldh alveolar amygdala
    aneurysm ankle annulus anterior anteroseptal anus aorta aortic apex apical appendix arch arteries artery ascending
    atria atrial atrioventricular auricle autochthon autochthonous basal base bile biliary bladder blood bones bowel
    brachiocephalic brainstem brachial bronchi bronchus calcaneus calcarine calcification callosum canal capsule
    carina carotid cartilage catheter cauda caudal caudate cavity cavum celiac cerebellar cerebellum cerebral
    cerebrospinal cerebrum
    cervix chiasm choroid cingulate circle clavicle clavicula cochlea coeliac collapse colon colonic common concha
    condyle consolidation contour convex coracoid cord corona coronary corpora corpus cortex cortical coccyx costa
    costal cranial cranium crus csf cuneus cyst cysts deep deltoid dens descending diaphragm disease disk distal
    diverticulum dorsal duct ductus duodenum dura ear edge effusion elbow embolism emphysema endocardium enhancing
    entorhinal epicardium epididymis epiphysis esophageal esophagus extra eye eyes eyeball face facial falx fascia fatty
    femoral femur fetal fetus fibroid fibrosis fibula fissure flexure fluid forearm foreground fossa fornix fovea
    fracture frontal fundus fusiform gallbladder ganglia gas gland glands glioblastoma glioma globe gluteus gm
    gonad gray great grey groin ground gtv gut gyrus hamstring healthy hematoma hemisphere hemorrhage hepatic
    hepaticvessel hernia hilum hindbrain hippocampal horn humerus hydrocephalus hyperintensities hyperintensity
    hypothalamus iliac iliacus iliocostalis ilium iliopsoas implant infarct inferior inferolateral infratentorial inner
    insula intercostal internal interstitial interventricular intervertebral intestine intracranial intramuscular
    invasive ischemia ischemic ischium jaw jejunum joint jugular juxta kidneys lacrimal larynx lateral latissimus
    lens lenticular lesions leukemia ligament limb lingual lips liquor lobe lobes longissimus lower lumen lymph
    lymphoma mandible mandibular mass mastoid matter maxilla maximus medial median mediastinum medius medulla
    membrane meninges meningioma meniscus mesencephalon mesentery metacarpal metastases metastasis metatarsal mid
    midbrain middle minimus minor mitral multifidus muscle muscles myo myocardial myocardium nasal nasopharynx
    necrosis necrotic negative nerve nerves net neural nipple node nodes nodule nodules nonenhancing normal
    nose nucleus occipital oedema oesophagus oncology opacity optic oral orbit orbital oropharynx organ organs
    osteophyte outer ovary pallidum palate pancreatic papillary parahippocampal parenchyma parietal parotid
    patella pathology peduncle pelvic pericardial pericardium peripheral peritoneum pharynx pineal pituitary placenta
    plaque plaques plate pleura pleural plexus pneumonia pneumothorax pole pons pontine pool popliteal port positive
    posterior postcava precentral postcentral precuneus prevertebral process proximal psoas pubis pulvinar putamen
    pylorus pyramid quadratus quadriceps radius ramus rectal rectum rectus reflux region renalis retina retro ribs rib
    rings root rotator round rotundum sacral sacroiliac sacrum salivary saphenous sarcoma scalp scapula sciatic sclera
    sclerosis scrotum sella semicircular seminal septal septum sigmoid sinus skeletal skeleton skin skull sphenoid
    sphincter spinal spinous splenic stem stenosis stent sternum stomach stone stones striatum subarachnoid
    subclavian subcortical subcutaneous subdural sublingual submandibular substantia sulci sulcus superior
    supratentorial supraspinatus suprarenal surface tail talus tarsal temporal tendon tentorium teres testes testicle
    testis thalamus thigh throat thrombus thymus thyroid tibia tongue tonsil torso total trachea tracheal tract
    transition transverse trapezius triceps tricuspid trochanter trunk tube tubes tumors tumours turbinate ulna
    umbilical upper ureter ureters urethra urinary uterus uvula vagina vas vastus vena ventral ventricle ventricles
    ventricular vermis vertebrae vertebral vesicle vesicles vestibule vitreous void wall white wm zone zygomatic
"""

# Further words of imaging, of formats and maps, and public data sets by name.
_FURTHER = """
    abdomenct and atm ats background bratsmen btcv bval bvec camcan camelyon cgm channel channels chaos class classes
    colour computed copd covid curated dev di digital ed es either fastmri flare fold frames gad greyscale hcp
    hecktor ignore images imagesunlabelled imagesva instance isles ixi kits la labelsts labelsva labelstr lidc lits
    lpba luna lv lymphnodes magnetic mapping more maps meta mms mnms mr mpm mrbrains mtsat niivue nlst none nor oasis
    objects of or outside pair pairs pdmap pdw pcasl phase picai pixel pool preview probseg promise pwi quantitative ra
    radiograph raw resampled resonance retest rv scar series sequences shape shared simulated single size sites slab
    sources spaced spectroscopy starmap subset synthetic tb tbmap tci tcia term tiny to tomography totalseg
    totalsegmentator tracks transforms two ukbb unenhanced unknown unspecified upenn validated verse version views
    voxel voxels word wmh
    amos demo desc empty good leftatrium items large left other small toy sections segmentations thing things
"""

# Neutral words that are also names of persons, or state an age.
_NAMES_TOO = "age art long pat star stem word la fu hand atlas canon bravo fl ng ge ti se te"
_NEEDED = "la hand ge ti se te fl atlas star"  # la_003, hand X-rays, and what sequences are called

PLAIN_WORDS = (NEUTRAL_WORDS | frozenset(_ANATOMY.split()) | frozenset(_FURTHER.split())) - (
    frozenset(_NAMES_TOO.split()) - frozenset(_NEEDED.split())
)
