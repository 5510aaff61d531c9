// Package commissaire is the root of the module. It holds no code; README.md
// says where everything is.
package commissaire
