// Command bench measures Switchboard beside nats-server: the same work, in the
// same run, with both servers as processes of their own and each with its own
// Go client. Rounds are interleaved, since machines are noisy, and what is
// reported are medians and their ratio.
//
//	cd bench && go run . [-quick] [-rounds 5] [-run one-to-one] [-o json]
//
// A scenario counts what arrives; a row whose count is wrong says so.
package main
