-- Fills sketch.gallery from the triggers of 0.1.0, whose arguments were the names of image, embedding and fused column,
-- and of the codebook. Part of pg_sketch--0.1.0--0.2.0.sql, after the statements that create sketch.gallery. The triggers
-- keep their arguments, which are ignored from now on.
DO $$
DECLARE
    found record;
    args pg_catalog.text[];
BEGIN
    FOR found IN
        SELECT t.tgrelid, t.tgargs, c.relpersistence, c.relowner
        FROM pg_catalog.pg_trigger AS t
            JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
            JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
            JOIN pg_catalog.pg_extension AS e ON e.extnamespace OPERATOR(pg_catalog.=) p.pronamespace
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_sketch' AND p.proname OPERATOR(pg_catalog.=) 'sketch_trigger'
            AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND t.tgnargs OPERATOR(pg_catalog.=) 4::pg_catalog.int2
    LOOP
        -- Each argument ends with a null byte: pairs of hexadecimal digits up to the pair 00.
        SELECT pg_catalog.array_agg(pg_catalog.convert_from(pg_catalog.decode(part[1], 'hex'), pg_catalog.getdatabaseencoding())
                                    ORDER BY number)
        INTO args
        FROM pg_catalog.regexp_matches(pg_catalog.encode(found.tgargs, 'hex'), '((?:(?!00)[0-9a-f]{2})*)00', 'g')
            WITH ORDINALITY AS matched (part, number);
        BEGIN
            INSERT INTO sketch.gallery (relation, image, embedding, fused, codebook, codebook_owner)
            VALUES (found.tgrelid,
                    pg_catalog.format('%s.%I', found.tgrelid::pg_catalog.regclass, args[1])::sketch.regcolumn,
                    pg_catalog.format('%s.%I', found.tgrelid::pg_catalog.regclass, args[2])::sketch.regcolumn,
                    pg_catalog.format('%s.%I', found.tgrelid::pg_catalog.regclass, args[3])::sketch.regcolumn,
                    args[4], pg_catalog.pg_get_userbyid(found.relowner))
            ON CONFLICT DO NOTHING;
        EXCEPTION WHEN undefined_column THEN
            -- Inserts have failed since the column was renamed or dropped.
            RAISE WARNING 'table "%" is no longer enabled for sketches', found.tgrelid::pg_catalog.regclass
                USING DETAIL = SQLERRM, HINT = 'Give the column its name back and call sketch_enable with embed => false.';
        END;
    END LOOP;
END
$$;
