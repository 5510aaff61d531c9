// Package httptls gives an HTTP server its TLS: certificate and key, and the CAs
// and revocation lists that client certificates are checked against. All of it is
// read again while the server runs, so that renewing needs no restart and costs
// no connection.
package httptls
