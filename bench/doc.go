// Command bench measures Switchboard beside nats-server, redis and mosquitto,
// and beside a bare relay: the same work, in the same run, with servers as
// processes of their own. Rounds are interleaved, since machines are noisy, and
// what is reported are medians and the median of the rounds' ratios.
//
//	cd bench && go run . [-quick] [-rounds 5] [-run "echo;open loop"] [-with switchboard,nats] [-o json]
//
// A scenario counts what arrives; a row whose count is wrong says so.
// docs/performance.md has the results and says what they mean.
package main
