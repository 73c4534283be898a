"""`/api/v1/datasets`."""

from pathlib import Path

from flask import Blueprint, Response, jsonify, url_for

from services import datasets, views
from services.api.access import admin, context
from services.api.parsing import DatasetBody, PageQuery, parse_body, parse_query

routes = Blueprint("datasets", __name__, url_prefix="/datasets")


@routes.post("")
def post_dataset() -> tuple[Response, int, dict[str, str]]:
    principal, body = admin(), parse_body(DatasetBody)
    row, created = datasets.register(
        context().database,
        context().store,
        name=body.name,
        format=body.format,
        path=Path(body.path),
        user=principal.user,
        scratch=context().settings.scratch,
    )
    location = url_for("api.datasets.get_dataset", dataset_id=row.id)
    return jsonify(views.dataset_json(row)), 201 if created else 200, {"Location": location}


@routes.get("")
def get_datasets() -> Response:
    query = parse_query(PageQuery)
    page = views.list_datasets(context().database, query.cursor, query.limit)
    return jsonify({"items": page.items, "next_cursor": page.next_cursor})


@routes.get("/<dataset_id>")
def get_dataset(dataset_id: str) -> Response:
    return jsonify(views.dataset_json(views.find_dataset(context().database, dataset_id)))


@routes.delete("/<dataset_id>")
def delete_dataset(dataset_id: str) -> tuple[str, int]:
    admin()
    datasets.remove(context().database, context().store, views.find_dataset(context().database, dataset_id).id)
    return "", 204
