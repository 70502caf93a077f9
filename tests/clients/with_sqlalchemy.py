"""SQLAlchemy 2 on psycopg: the table, the functions and the operator as expressions."""
import json
import os
import pathlib

from sqlalchemy import BigInteger, Column, Identity, LargeBinary, MetaData, Table, Text, create_engine, event, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType


class Embedding(UserDefinedType):
    cache_ok = True

    def get_col_spec(self):
        return "embedding"


strokes = [[[10, 90, 90, 10, 10], [20, 20, 80, 80, 20]]]
photos = sorted(pathlib.Path(os.environ["PHOTOS"]).iterdir())
engine = create_engine("postgresql+psycopg://", isolation_level="AUTOCOMMIT")
calls = 0


@event.listens_for(engine, "before_cursor_execute")
def count(*_):
    global calls
    calls += 1


tables = MetaData()
photo = Table("photo", tables, Column("id", BigInteger, Identity(), primary_key=True), Column("name", Text), Column("image", LargeBinary))

with engine.connect() as db:
    db.execute(text("CREATE EXTENSION pg_sketch"))
    tables.create_all(db)
    for path in photos:
        db.execute(insert(photo).values(name=path.name, image=path.read_bytes()))
    db.execute(text("SELECT sketch_enable(CAST(:photos AS text)::regclass, :image)"), {"photos": "photo", "image": "image"})
    # sketch_enable has added two columns.
    photo.append_column(Column("embedding", Embedding))
    photo.append_column(Column("fused", Embedding))
    db.execute(text("SELECT sketch_build_codebook(:name, 'photo', weight => :weight)"), {"name": "photo", "weight": 0.3})
    db.execute(text("SELECT sketch_fuse_photos('photo')"))

    def nearest(distance):
        return db.scalars(select(photo.c.id).order_by(distance).limit(10)).all()

    drawing = literal(strokes, JSONB)
    found = nearest(photo.c.fused.op("<->")(func.sketch_embed(drawing)))
    assert len(found) == 10
    assert found == nearest(func.sketch_distance(photo.c.fused, drawing))
    assert found == nearest(func.sketch_distance(photo.c.fused, json.dumps(strokes)))
    assert found == nearest(func.sketch_distance(photo.c.fused, json.dumps(strokes).encode()))
    embedding = db.scalar(select(func.sketch_embed(drawing, type_=Embedding)))
    assert found == nearest(photo.c.fused.op("<->")(literal(embedding, Embedding)))

print(f"{calls} calls")
