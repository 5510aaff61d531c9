package workflows

// Revision numbers the code of this package. It grows by one whenever a history
// that the code before has written could replay differently under the new code,
// and never falls. A worker carries it as its build id in Temporal: a running
// operation moves to the workers of the highest revision and never back, so the
// code must replay the histories of every earlier one (testdata/histories).
const Revision = 2

// Deployment names the workers of an installation in Temporal, of whatever
// revision they are.
const Deployment = "commissaire"
