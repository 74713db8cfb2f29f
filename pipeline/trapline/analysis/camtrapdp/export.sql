-- The tables of a Camtrap DP 1.0.2 package as views over results, events and the table `deployments`. Each image in an event
-- is a medium with one observation, and each event has one observation of its own. What is less probable than the
-- threshold is `unknown`, and what the model had nothing to look at (failed) `unclassified`; neither has a name, for a name
-- would be a claim. The name that missed the threshold stands in `observationTags`.

create temp view images as
select image_uri, key, status, error, captured_at, format, species, probability, classified_at
from {images} join written using (filename);

create temp view mapping as select image_uri, event_id from {mapping};

create temp view events as from {events};

create temp view placed as
select image_uri, event_id, deployment, zone
from mapping join events using (event_id) join deployments on deploymentID = deployment;

create temp view quarantine as
select image_uri, status, error, captured_at, deployment, reason from {lost}
union all
select image_uri, status, error, captured_at, deployment, 'deployment_not_in_table'
from images join mapping using (image_uri) join events using (event_id)
anti join deployments on deploymentID = deployment;

create temp macro media_id(uri) as left(sha256(uri), 32);

-- The standard allows neither absolute paths nor two dots.
create temp macro file_path(uri) as
replace(case when starts_with(uri, '/') then 'file://' || uri else uri end, '..', '%2E%2E');

create temp view media as
select
    media_id(image_uri) as mediaID,
    deployment as deploymentID,
    {capture_method}::varchar as captureMethod,
    stamp(captured_at, zone) as timestamp,
    file_path(image_uri) as filePath,
    false as filePublic,
    parse_filename(key) as fileName,
    'image/' || coalesce(format, lower(regexp_extract(key, '[^.]*$'))) as fileMediatype,
    null::varchar as exifData,
    null::boolean as favorite,
    error as mediaComments
from images join placed using (image_uri);

create temp view seen as
select
    media_id(image_uri) || '-media' as observationID, deployment as deploymentID, media_id(image_uri) as mediaID,
    event_id as eventID, stamp(captured_at, zone) as eventStart, stamp(captured_at, zone) as eventEnd,
    'media' as observationLevel, species, probability, classified_at
from images join placed using (image_uri)
union all
select
    event_id || '-event', deployment, null,
    event_id, stamp(started_at, zone), stamp(ended_at, zone),
    'event', events.species, events.probability, classified_at
from events join deployments on deploymentID = deployment left join images on image_uri = best_frame;

create temp view told as
select
    seen.* exclude (species), coalesce(taxa.scientificName, species) as name,
    species is not null as classified,
    probability < {threshold} as vague,
    case when species is null then 'unclassified' when vague then 'unknown' else taxa.observationType end as kind
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
    null::double as bboxX,
    null::double as bboxY,
    null::double as bboxWidth,
    null::double as bboxHeight,
    case when classified then 'machine' end as classificationMethod,
    case when classified then {model} end as classifiedBy,
    case when classified then strftime(timezone('UTC', classified_at), '%Y-%m-%dT%H:%M:%SZ') end
        as classificationTimestamp,
    case when not vague then probability end as classificationProbability,
    case when vague then 'mostProbable:' || replace(name, '|', ' ') || ' | probability:' || probability end
        as observationTags,
    null::varchar as observationComments
from told;
