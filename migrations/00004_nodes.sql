-- Nodes: hosts that are nodes of a Kubernetes cluster. Registering one and removing
-- it are operations on the host.
--
-- The binary before this one works with this schema. It starts no such operation, and
-- leaves those that are there to the new one.

-- +goose Up

-- manager is the container manager that a register or unregister asks, also when the
-- host is gone since. waiting is of operations that do not roll.
ALTER TABLE operation
    ADD COLUMN manager text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN waiting text NOT NULL DEFAULT '',
    DROP CONSTRAINT operation_kind,
    ADD CONSTRAINT operation_kind CHECK (kind IN ('bootstrap', 'register', 'unregister', 'restart', 'upgrade', 'deploy')),
    ADD CONSTRAINT operation_manager CHECK ((manager <> '') = (kind IN ('register', 'unregister')));

CREATE INDEX operation_of_manager ON operation (tenant, manager) WHERE finished IS NULL AND manager <> '';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION operation_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (tenant, operation_id, kind, state, by_whom)
        VALUES (NEW.tenant, NEW.id, 'operation', NEW.state, NEW.requested_by);
    IF NEW.kind IN ('restart', 'upgrade', 'deploy') THEN
        INSERT INTO rollout (operation_id, tenant) VALUES (NEW.id, NEW.tenant);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- checking names the PUT that has not heard yet whether the container manager answers.
-- While it does, the row is there for nobody else.
ALTER TABLE container_manager ADD COLUMN checking uuid;

-- The row is written before the container manager is asked, so that what it may know is
-- removed in any case. ready: it said that the host can work. leaving: the host has left,
-- and is removed when the operation that is at it has ended. status is what the manager
-- said last, NULL for nothing, at status_at.
ALTER TABLE node
    ADD COLUMN ready boolean NOT NULL DEFAULT true,
    ADD COLUMN leaving boolean NOT NULL DEFAULT false,
    ADD COLUMN status jsonb,
    ADD COLUMN status_at timestamptz;
