// Package secret holds what must not be seen: a text that cannot print itself,
// and the sealing of such texts before they reach the database.
//
//	request ── Text ── Sealer.Seal ──> bytea column     (key file: never in the database)
//	SSH dial <── Text.Reveal ── Sealer.Open ──┘
//
// A sealed value is bound to the tenant, table and row it stands in (see Row),
// so a value copied to another row does not open there. The key file may hold
// several keys: one seals, all open. That is how keys are changed (see AddKey).
package secret
