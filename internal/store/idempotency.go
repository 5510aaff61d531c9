package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"commissaire/internal/fleet"
)

// request is one that may be sent again: the sender's key, "" for none, and what
// it asks for.
type request struct {
	key    string
	digest []byte // SHA-256
}

const (
	// The operation is as old as the key when that request made it: one transaction
	// wrote both.
	answeredSQL = `SELECT k.digest, k.operation_id::text, k.created = o.created
		FROM idempotency_key k JOIN operation o ON o.id = k.operation_id WHERE k.tenant = $1 AND k.key = $2`

	answerSQL = `INSERT INTO idempotency_key (tenant, key, digest, operation_id) VALUES ($1, $2, $3, $4)
		ON CONFLICT ON CONSTRAINT idempotency_key_pk DO NOTHING`
)

// answered gives the operation that an earlier request with this key got. It is a
// Conflict when that one asked for something else.
func (s *Store) answered(ctx context.Context, q querier, r request) (op fleet.Operation, created, known bool, err error) {
	if r.key == "" {
		return op, false, false, nil
	}
	var digest []byte
	var id string
	err = q.QueryRow(ctx, answeredSQL, s.tenant, r.key).Scan(&digest, &id, &created)
	switch {
	case isNoRows(err):
		return op, false, false, nil
	case err != nil:
		return op, false, false, err
	case !bytes.Equal(digest, r.digest):
		e := fleet.Errorf(fleet.Conflict, "the Idempotency-Key was sent before, with another request; take a new one")
		e.Fields = []fleet.FieldError{{Field: "Idempotency-Key", Detail: "belongs to another request"}}
		return op, false, false, e
	}
	op, err = s.operation(ctx, q, operationSQL, id)
	return op, created, true, err
}

// answer notes which operation a request got.
func (s *Store) answer(ctx context.Context, q querier, r request, id string) error {
	if r.key == "" {
		return nil
	}
	tag, err := q.Exec(ctx, answerSQL, s.tenant, r.key, r.digest, id)
	if err == nil && tag.RowsAffected() == 0 {
		return errAgain // the same request at the same time; the next look finds its answer
	}
	return err
}

// digestOf tells requests apart. What it is given must marshal to JSON.
func digestOf(parts ...any) []byte {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(fmt.Sprintf("digest of a request: %v", err)) // texts and policies always marshal
	}
	sum := sha256.Sum256(text)
	return sum[:]
}

func (n NewOperation) digest() []byte {
	parts := []any{"start", n.Kind, n.Cluster, n.Host, n.Version, n.Policy, n.RetryOf, n.RequestedBy}
	if n.Command != nil { // else the digests are those of the binary before commands
		parts = append(parts, n.Command)
	}
	return digestOf(parts...)
}
