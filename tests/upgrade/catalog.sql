-- Every object of the extension with everything that defines it, one property a line, in an order that does not depend on
-- how the object came to be: a fresh installation and an updated one must print the same.
\pset tuples_only on
\pset format unaligned
SET search_path = pg_catalog;
CREATE TEMP VIEW member AS
SELECT classid, objid, i.type, i.identity
FROM pg_depend, pg_identify_object(classid, objid, 0) AS i
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_sketch') AND deptype = 'e';
CREATE TEMP VIEW relation AS
SELECT m.identity, c.* FROM member AS m JOIN pg_class AS c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid;
CREATE FUNCTION pg_temp.acl(acl aclitem[]) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s=%s%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, privilege_type,
                             CASE WHEN is_grantable THEN '*' ELSE '' END), ' ' ORDER BY grantee, privilege_type)
    FROM aclexplode(acl)
$$;
SELECT replace(concat_ws(' | ', type, identity, property, value), E'\n', '\n')
FROM (
    SELECT type, identity, 'exists' AS property, NULL AS value FROM member
    UNION ALL
    SELECT type, identity, 'comment', obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)) FROM member
    UNION ALL
    SELECT type, identity, 'definition', CASE prokind WHEN 'a' THEN '' ELSE pg_get_functiondef(objid) END || ' ' || pg_temp.acl(coalesce(proacl, acldefault('f', proowner)))
    FROM member JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid
    UNION ALL
    SELECT type, identity, 'aggregate', concat_ws(' ', proparallel, aggtransfn, aggcombinefn, aggfinalfn, aggtranstype::regtype, agginitval)
    FROM member JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid JOIN pg_aggregate ON aggfnoid = p.oid
    UNION ALL
    SELECT type, identity, 'definition', concat_ws(' ', typlen, typbyval, typtype, typcategory, typispreferred, typdelim, typsubscript,
        typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze, typalign, typstorage, typnotnull, typdefault,
        pg_temp.acl(coalesce(typacl, acldefault('T', typowner))))
    FROM member JOIN pg_type AS t ON classid = 'pg_type'::regclass AND objid = t.oid
    UNION ALL
    SELECT type, identity, 'definition', concat_ws(' ', oprcanmerge, oprcanhash, oprresult::regtype, oprcom::regoperator,
        oprnegate::regoperator, oprcode, oprrest, oprjoin)
    FROM member JOIN pg_operator AS o ON classid = 'pg_operator'::regclass AND objid = o.oid
    UNION ALL
    SELECT type, identity, 'definition', concat_ws(' ', castfunc::regprocedure, castcontext, castmethod)
    FROM member JOIN pg_cast AS c ON classid = 'pg_cast'::regclass AND objid = c.oid
    UNION ALL
    SELECT type, identity, 'definition', concat_ws(' ', amhandler, amtype)
    FROM member JOIN pg_am AS a ON classid = 'pg_am'::regclass AND objid = a.oid
    UNION ALL
    SELECT type, identity, 'definition', concat_ws(' ', opcintype::regtype, opcdefault, opckeytype::regtype)
    FROM member JOIN pg_opclass AS o ON classid = 'pg_opclass'::regclass AND objid = o.oid
    UNION ALL
    SELECT type, identity, format('operator %s (%s, %s)', amopstrategy, amoplefttype::regtype, amoprighttype::regtype),
        concat_ws(' ', amoppurpose, amopopr::regoperator, (SELECT opfname FROM pg_opfamily AS f WHERE f.oid = amopsortfamily))
    FROM member JOIN pg_amop AS o ON classid = 'pg_opfamily'::regclass AND objid = amopfamily
    UNION ALL
    SELECT type, identity, format('function %s (%s, %s)', amprocnum, amproclefttype::regtype, amprocrighttype::regtype), amproc::text
    FROM member JOIN pg_amproc AS p ON classid = 'pg_opfamily'::regclass AND objid = amprocfamily
    UNION ALL
    SELECT type, identity, 'definition', pg_temp.acl(coalesce(nspacl, acldefault('n', nspowner)))
    FROM member JOIN pg_namespace AS n ON classid = 'pg_namespace'::regclass AND objid = n.oid
    UNION ALL
    SELECT type, identity, 'definition', concat_ws(' ', evtevent, evtfoid::regprocedure, evtenabled, evttags)
    FROM member JOIN pg_event_trigger AS e ON classid = 'pg_event_trigger'::regclass AND objid = e.oid
    UNION ALL
    SELECT 'relation', identity, 'definition', concat_ws(' ', relkind, relpersistence, relrowsecurity, reloptions,
        CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) END, pg_temp.acl(coalesce(relacl, acldefault('r', relowner))))
    FROM relation
    UNION ALL
    SELECT 'relation', identity, format('column %s', row_number() OVER (PARTITION BY attrelid ORDER BY attnum)),
        concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attstorage, attcompression, attidentity, attgenerated,
                  pg_get_expr(adbin, adrelid), pg_temp.acl(attacl), col_description(attrelid, attnum))
    FROM relation AS r JOIN pg_attribute AS a ON attrelid = r.oid AND attnum > 0 AND NOT attisdropped
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    UNION ALL
    SELECT 'relation', identity, format('constraint %s', conname), pg_get_constraintdef(c.oid)
    FROM relation AS r JOIN pg_constraint AS c ON conrelid = r.oid
    UNION ALL
    SELECT 'relation', identity, format('index %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
    FROM relation AS r JOIN pg_index ON indrelid = r.oid
    UNION ALL
    SELECT 'relation', identity, format('trigger %s', tgname), pg_get_triggerdef(t.oid)
    FROM relation AS r JOIN pg_trigger AS t ON tgrelid = r.oid AND NOT tgisinternal
    UNION ALL
    SELECT 'relation', identity, format('policy %s', polname),
        concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    FROM relation AS r JOIN pg_policy ON polrelid = r.oid
    UNION ALL
    SELECT 'extension', extname, format('dumped %s', part.relation::regclass), part.condition
    FROM pg_extension, unnest(extconfig, extcondition) AS part (relation, condition) WHERE extname = 'pg_sketch'
    UNION ALL
    SELECT 'extension', extname, 'definition', concat_ws(' ', extversion, extrelocatable, extnamespace::regnamespace)
    FROM pg_extension WHERE extname = 'pg_sketch'
) AS part
ORDER BY 1;
