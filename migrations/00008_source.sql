-- Sources: others who know of hosts. What one says of a host stands above what was found
-- on the host itself.
--
-- The binary before this one works with this schema: it starts no sync, and what it finds
-- on a host is overruled by a trigger. It ends a sync that has run for longer than a
-- minute, since it looks for its workflow under a name that is none.

-- +goose Up

-- source_facts are what the host's source said last, '{}' for nothing.
ALTER TABLE host
    ADD COLUMN source_facts jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT host_source_facts_object CHECK (jsonb_typeof(source_facts) = 'object');

CREATE INDEX host_of_source ON host (tenant, source, address) WHERE source <> '';

-- +goose StatementBegin
CREATE FUNCTION host_facts_found() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.os := coalesce(NEW.source_facts ->> 'os', NEW.os);
    NEW.os_version := coalesce(NEW.source_facts ->> 'os_version', NEW.os_version);
    NEW.cpus := coalesce((NEW.source_facts -> 'cpus')::integer, NEW.cpus);
    NEW.memory := coalesce((NEW.source_facts -> 'memory')::integer, NEW.memory);
    NEW.space := coalesce((NEW.source_facts -> 'space')::bigint, NEW.space);
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER host_facts_found BEFORE UPDATE OF source_facts, os, os_version, cpus, memory, space ON host FOR EACH ROW
    WHEN (NEW.source_facts <> '{}') EXECUTE FUNCTION host_facts_found();

-- source is the one that a sync asks. A dry run of one changes no host. sync is what came
-- of it, NULL for other operations and before its end.
ALTER TABLE operation
    ADD COLUMN source text COLLATE "C",
    ADD COLUMN dry_run boolean NOT NULL DEFAULT false,
    ADD COLUMN sync jsonb,
    DROP CONSTRAINT operation_kind,
    ADD CONSTRAINT operation_kind CHECK (kind IN ('bootstrap', 'register', 'unregister', 'restart', 'upgrade', 'deploy', 'sync')),
    DROP CONSTRAINT operation_one_target,
    ADD CONSTRAINT operation_one_target CHECK (num_nonnulls(cluster, host, source) = 1),
    ADD CONSTRAINT operation_source CHECK ((source IS NOT NULL) = (kind = 'sync'));

-- The lock: one unfinished operation per source.
CREATE UNIQUE INDEX operation_one_per_source ON operation (tenant, source) WHERE finished IS NULL AND source IS NOT NULL;

CREATE INDEX operation_by_source ON operation (tenant, source, id) WHERE source IS NOT NULL;
