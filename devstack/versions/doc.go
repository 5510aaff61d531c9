// Package versions tests that workers of different revisions share operations,
// on a real Temporal: which revision gets them, and that nothing is lost when the
// workers are exchanged in the middle of rollouts.
package versions
