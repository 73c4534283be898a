"""`/api/v1/datasets`."""

from flask import Response, abort, jsonify, url_for

from services import datasets, views
from services.api import answers
from services.api.documentation import Section, documented
from services.api.parsing import DatasetBody, DatasetsQuery, idempotency_key, parse_body, parse_query, preferred_wait
from services.asking import admin, context, reader, writer
from services.audit import Act, noted
from services.datasets import Registration
from services.listing import DatasetFilter

routes = Section(
    "datasets",
    __name__,
    url_prefix="/datasets",
    tags={"datasets": "Data sets: checked, packed, and unchanged from then on"},
    paths={"dataset_id": ("id of a data set, `name@version`, or a name: its newest version that is ready", "ham10000")},
)


@routes.post("")
@documented(
    {201: answers.Dataset, 200: answers.Dataset},
    body=DatasetBody,
    headers=["Idempotency-Key", "Prefer"],
    problems=[409, 429],
)
def post_dataset() -> tuple[Response, int, dict[str, str]]:
    """Register a data set.

    It is read, checked and packed by a job; jobs on it may be submitted at once, and wait. 200: the `Idempotency-Key`
    was used for this very request before.
    """
    principal, body = writer(), parse_body(DatasetBody)
    if body.place.upload is None:
        admin()  # whatever else a worker can see
    asked = Registration(
        name=body.name,
        format=body.format,
        project=body.project,
        folder=body.place.path,
        s3=body.place.s3,
        upload=body.place.upload,
        licence=body.licence,
        citation=body.citation,
        locked=body.locked,
        idempotency_key=idempotency_key(),
    )
    dataset_id, created = datasets.register(context(), principal, asked)
    headers = {"Location": url_for("api.datasets.get_dataset", dataset_id=dataset_id)}
    if (seconds := preferred_wait()) is not None:
        datasets.wait(context().database, dataset_id, seconds)
        headers["Preference-Applied"] = f"wait={seconds}"
    return jsonify(views.get_dataset(context().database, principal, dataset_id)), 201 if created else 200, headers


@routes.get("")
@documented({200: answers.Page[answers.ListedDataset], 304: None}, query=DatasetsQuery, headers=["If-None-Match"])
def get_datasets() -> Response:
    """List data sets, newest first."""
    query = parse_query(DatasetsQuery)
    wanted = DatasetFilter(**query.model_dump(exclude={"cursor", "limit"}))
    page = views.list_datasets(context().database, reader(), query.cursor, query.limit, wanted)
    return jsonify({"items": page.items, "next_cursor": page.next_cursor})


@routes.get("/<dataset_id>")
@documented({200: answers.Dataset, 304: None}, headers=["If-None-Match"])
def get_dataset(dataset_id: str) -> Response:
    """Show a data set.

    One that is not being registered any more has an `ETag`.
    """
    return jsonify(views.get_dataset(context().database, reader(), dataset_id))


@routes.delete("/<dataset_id>")
@documented({204: None}, problems=[409, 503])
def delete_dataset(dataset_id: str) -> tuple[str, int]:
    """Remove a data set's files.

    What jobs on it were given can still be shown. 409: jobs wait for it, or run on it.
    """
    principal, row = writer(), views.find_dataset(context().database, writer(), dataset_id)
    if not datasets.may_remove(context().database, principal, row):
        abort(403, "a data set is removed by who registered it, or by an admin of its project")
    noting = noted(context().database, Act(principal, "dataset.remove", project=row.project, detail={"name": row.name}))
    datasets.remove(context().database, context().store, row.id, principal.user, noting)
    return "", 204
