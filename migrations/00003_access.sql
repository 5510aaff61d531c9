-- Access: tokens, the log of who changed what, container managers and the hosts
-- that they hold.
--
-- The binary before this one knows nothing of these tables. It registers no host
-- with a container manager, and those that are registered go with their host.

-- +goose Up

-- options are what may be shown, with every secret replaced. sealed has all of them,
-- as JSON, bound to tenant, table and name.
CREATE TABLE container_manager (
    tenant  text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    type    text NOT NULL,
    options jsonb NOT NULL DEFAULT '{}',
    sealed  bytea NOT NULL,
    key_id  bigint NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT container_manager_pk PRIMARY KEY (tenant, name),
    CONSTRAINT container_manager_tenant_fk FOREIGN KEY (tenant) REFERENCES tenant (name),
    CONSTRAINT container_manager_name_given CHECK (name <> ''),
    CONSTRAINT container_manager_type CHECK (type IN ('openshift', 'kubernetes', 'trivial')),
    CONSTRAINT container_manager_options_object CHECK (jsonb_typeof(options) = 'object')
);

-- Which container manager holds a host. It is not always that of the host's cluster:
-- the cluster may name another one since.
CREATE TABLE node (
    tenant     text COLLATE "C" NOT NULL,
    address    text COLLATE "C" NOT NULL,
    manager    text COLLATE "C" NOT NULL,
    registered timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT node_pk PRIMARY KEY (tenant, address),
    CONSTRAINT node_host_fk FOREIGN KEY (tenant, address) REFERENCES host (tenant, address) ON DELETE CASCADE,
    CONSTRAINT node_manager_fk FOREIGN KEY (tenant, manager) REFERENCES container_manager (tenant, name) ON DELETE CASCADE
);

CREATE INDEX node_by_manager ON node (tenant, manager, address);

-- digest is the SHA-256 of the secret part, which is stored nowhere.
CREATE TABLE api_token (
    tenant     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    digest     bytea NOT NULL,
    name       text NOT NULL,
    owner      text COLLATE "C" NOT NULL,
    role       text NOT NULL,
    operations text[] NOT NULL DEFAULT '{}',
    created    timestamptz NOT NULL DEFAULT now(),
    expires    timestamptz NOT NULL,
    revoked    timestamptz,
    last_used  timestamptz,
    CONSTRAINT api_token_pk PRIMARY KEY (tenant, id),
    CONSTRAINT api_token_tenant_fk FOREIGN KEY (tenant) REFERENCES tenant (name),
    CONSTRAINT api_token_id_given CHECK (id <> ''),
    CONSTRAINT api_token_digest_whole CHECK (octet_length(digest) = 32),
    CONSTRAINT api_token_owner_given CHECK (owner <> ''),
    CONSTRAINT api_token_role CHECK (role IN ('viewer', 'operator', 'admin'))
);

CREATE INDEX api_token_by_age ON api_token (tenant, created, id);
CREATE INDEX api_token_by_owner ON api_token (tenant, owner, created, id);

-- sealed is the private key, bound to tenant, table and id. A token that was used or
-- revoked has none any more: a host's is among its credentials. cluster is a name only.
CREATE TABLE join_token (
    tenant        text COLLATE "C" NOT NULL,
    id            text COLLATE "C" NOT NULL,
    digest        bytea NOT NULL,
    cluster       text COLLATE "C" NOT NULL DEFAULT '',
    remote_user   text NOT NULL,
    public_key    text NOT NULL,
    sealed        bytea,
    key_id        bigint,
    created_by    text NOT NULL DEFAULT '',
    created       timestamptz NOT NULL DEFAULT now(),
    expires       timestamptz NOT NULL,
    revoked       timestamptz,
    used          timestamptz,
    used_by       text COLLATE "C" NOT NULL DEFAULT '',
    used_host_key text NOT NULL DEFAULT '',
    CONSTRAINT join_token_pk PRIMARY KEY (tenant, id),
    CONSTRAINT join_token_tenant_fk FOREIGN KEY (tenant) REFERENCES tenant (name),
    CONSTRAINT join_token_id_given CHECK (id <> ''),
    CONSTRAINT join_token_digest_whole CHECK (octet_length(digest) = 32),
    CONSTRAINT join_token_user_given CHECK (remote_user <> ''),
    CONSTRAINT join_token_key_while_good CHECK (num_nulls(sealed, key_id) IN (0, 2) AND (used IS NULL AND revoked IS NULL OR sealed IS NULL)),
    CONSTRAINT join_token_used_by_whom CHECK ((used IS NOT NULL) = (used_by <> '' AND used_host_key <> ''))
);

CREATE INDEX join_token_by_age ON join_token (tenant, created, id);
CREATE INDEX join_token_with_key ON join_token (tenant, expires) WHERE sealed IS NOT NULL;

-- Who changed what. status is 0 from the beginning of an act until its end; token is the
-- id of the one that was shown. It refers to nothing, as the record of operations does not.
CREATE TABLE audit (
    tenant     text COLLATE "C" NOT NULL,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL DEFAULT now(),
    principal  text COLLATE "C" NOT NULL,
    method     text NOT NULL,
    role       text NOT NULL,
    address    text NOT NULL,
    operation  text COLLATE "C" NOT NULL,
    path       text NOT NULL,
    status     integer NOT NULL DEFAULT 0,
    request_id text NOT NULL DEFAULT '',
    token      text NOT NULL DEFAULT '',
    subject    text NOT NULL DEFAULT '',
    CONSTRAINT audit_pk PRIMARY KEY (tenant, id)
);

-- One index per way to list, newest first.
CREATE INDEX audit_by_principal ON audit (tenant, principal, id);
CREATE INDEX audit_by_operation ON audit (tenant, operation, id);
