-- The tables of a Camtrap DP 1.0.2 package as views over results, events and the tables `deployments`, `taxa` and
-- `timed` (see placement.py). Each image in an event is a medium. It has one observation, or one of each box where a
-- detector found boxes in it; and each event has one observation. A prediction that is less probable than the
-- threshold is `unknown`, and what was not predicted (a failed image, or one that was skipped) `unclassified`; neither
-- has a name, for a name would be a claim. The name that missed the threshold is in `observationTags`.

create temp macro media_id(uri) as left(sha256(uri), 32);

-- The standard allows neither absolute paths, nor two dots, nor a line break.
create temp macro allowed(path) as
replace(replace(replace(path, '..', '%2E%2E'), chr(10), '%0A'), chr(13), '%0D');

create temp macro extension(key) as lower(regexp_extract(parse_filename(key), '\.([^.]+)$', 1));

create temp macro media_type(format, extension, is_clip) as
case coalesce(format, extension)
    when 'mov' then 'video/quicktime' when 'qt' then 'video/quicktime' when '3gp' then 'video/3gpp'
    when 'avi' then 'video/x-msvideo' when 'mkv' then 'video/x-matroska' when 'mts' then 'video/mp2t'
    when 'm2ts' then 'video/mp2t' when 'asf' then 'video/x-ms-asf' when 'wmv' then 'video/x-ms-wmv'
    when 'mpg' then 'video/mpeg' when 'mpeg' then 'video/mpeg' when 'mp4' then 'video/mp4' when 'm4v' then 'video/mp4'
    when 'webm' then 'video/webm'
    when 'jpg' then 'image/jpeg' when 'jpe' then 'image/jpeg' when 'tif' then 'image/tiff'
    else case when is_clip then 'video/' else 'image/' end
        || coalesce(format, nullif(regexp_replace(extension, '[^a-z0-9.+-]', '', 'g'), ''), 'unknown') end;

create temp view media as
select
    media_id(image_uri) as mediaID,
    deploymentID,
    {capture_method}::varchar as captureMethod,
    stamp(placed.captured_at, minutes) as timestamp,
    {file_path} as filePath,
    {file_public} as filePublic,
    parse_filename(key) as fileName,
    media_type(format, extension(key), coalesce(media_type = 'video', false)) as fileMediatype,
    null::varchar as exifData,
    null::boolean as favorite,
    error as mediaComments
from images join placed using (image_uri);

create temp view seen as
select
    media_id(image_uri) || '-media' as observationID, deploymentID, media_id(image_uri) as mediaID, event_id as eventID,
    stamp(captured_at, minutes) as eventStart, stamp(captured_at + lasts, minutes) as eventEnd,
    'media' as observationLevel,
    species, probability, classified_at, null::float[] as box, null as detected
from images join placed using (image_uri) anti join crops using (image_uri)
union all
select
    media_id(image_uri) || '-' || crop, deploymentID, media_id(image_uri), event_id,
    stamp(captured_at, minutes), stamp(captured_at, minutes), 'media',
    -- What the detector took for a person or a vehicle is not asked for its species.
    case when detected is null then species end,
    case when detected is null then probability else detection_confidence end,
    classified_at, box, detected
from (select *, case when detection_category in ('person', 'human') then 'human'
                     when detection_category = 'vehicle' then 'vehicle' end as detected from crops)
join placed using (image_uri)
union all
select
    event_id || '-event', timed.deploymentID, null, event_id,
    stamp(timed.started_at, minutes), stamp(timed.ended_at, minutes), 'event',
    events.species, events.probability, classified_at, null, null
from events join timed using (event_id) left join images on image_uri = best_frame;

create temp view told as
select
    seen.* exclude (species),
    case detected when 'human' then 'Homo sapiens' else coalesce(taxa.scientificName, species) end as name,
    -- A prediction that is not finite is none; to SQL, NaN is above all numbers.
    (species is not null and isfinite(probability)) or detected is not null as classified,
    detected is null and probability < {threshold} as vague,
    case when not classified then 'unclassified' when vague then 'unknown'
         else coalesce(detected, taxa.observationType) end as kind
from seen left join taxa on class = species;

create temp view observations as
select
    observationID, deploymentID, mediaID, eventID, eventStart, eventEnd, observationLevel,
    kind as observationType,
    null::varchar as cameraSetupType,
    case when kind in ('animal', 'human') then name end as scientificName,
    null::integer as count,
    null::varchar as lifeStage,
    null::varchar as sex,
    null::varchar as behavior,
    null::varchar as individualID,
    null::double as individualPositionRadius,
    null::double as individualPositionAngle,
    null::double as individualSpeed,
    -- To a thousandth of a pixel; no box without extent (`greatest` ignores nulls).
    round(box[1]::double, 7) as bboxX,
    round(box[2]::double, 7) as bboxY,
    case when box is not null then greatest(round(box[3]::double, 7), 1e-7) end as bboxWidth,
    case when box is not null then greatest(round(box[4]::double, 7), 1e-7) end as bboxHeight,
    case when classified then 'machine' end as classificationMethod,
    case when detected is not null then {detector} when classified then {model} end as classifiedBy,
    case when classified then strftime(timezone('UTC', classified_at), '%Y-%m-%dT%H:%M:%SZ') end
        as classificationTimestamp,
    -- A mean of probabilities may exceed 1 by the rounding of a float.
    case when classified and not vague then least(probability, 1) end as classificationProbability,
    case when vague then 'mostProbable:' || replace(name, '|', ' ') || ' | probability:' || probability end
        as observationTags,
    null::varchar as observationComments
from told;

create temp view quarantine as
select image_uri, status, error, captured_at, deployment, reason from {unassigned}
union all
select image_uri, status, error, mapping.captured_at, deployment, reason
from images join mapping using (image_uri) join assigned using (event_id)
where deploymentID is null;
