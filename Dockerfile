# docker build --target server .       PostgreSQL with the extension, in shared_preload_libraries
# docker build --target extension .    nothing but the extension's files, for image volumes (PostgreSQL 18, CloudNativePG)
# docker build --target draw .         the page that finds photos while one draws
# docker build --target packages --output dist .    Debian packages
ARG PG=18

FROM rust:1.95-bookworm AS build
ARG PG
ARG SOURCE_DATE_EPOCH=0
WORKDIR /src
COPY packaging/pgdg.sh packaging/
RUN packaging/pgdg.sh
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=target-${PG} \
    make deb PG="${PG}"
# The same files without PostgreSQL's folders around them.
RUN set -eux; \
    mkdir -p /extension/lib /extension/share/extension /unpacked; \
    for package in dist/*.deb; do dpkg-deb --extract "${package}" /unpacked; done; \
    cp "/unpacked/usr/lib/postgresql/${PG}/lib/pg_sketch.so" /extension/lib/; \
    cp -r /unpacked/usr/lib/pg-sketch /extension/lib/pg_sketch; \
    cp "/unpacked/usr/share/postgresql/${PG}/extension"/pg_sketch* /extension/share/extension/; \
    cp -r /unpacked/usr/share/doc/pg-sketch-runtime /extension/licenses

FROM scratch AS packages
COPY --from=build /src/dist/ /

FROM scratch AS extension
COPY --from=build /extension/ /

FROM rust:1.95-bookworm AS draw-build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends npm && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=target-draw \
    npm ci --ignore-scripts --prefix examples/draw \
    && cargo build --release -p sketch-draw \
    && cp target/release/sketch-draw /usr/local/bin/

FROM debian:bookworm-slim AS draw
COPY --from=draw-build /usr/local/bin/sketch-draw /usr/local/bin/
USER 65534
EXPOSE 8000
ENTRYPOINT ["sketch-draw", "--listen", "0.0.0.0:8000"]

FROM postgres:${PG}-bookworm AS server
RUN --mount=type=bind,from=packages,target=/packages \
    apt-get update \
    && apt-get install -y --no-install-recommends /packages/*.deb \
    && rm -rf /var/lib/apt/lists/* \
    && echo "shared_preload_libraries = 'pg_sketch'" >>/usr/share/postgresql/postgresql.conf.sample
COPY examples/draw/role.sql /usr/local/share/pg_sketch/draw_role.sql
COPY packaging/container/init.sh /docker-entrypoint-initdb.d/pg_sketch.sh
