// Package hubctl holds the commands of the hubctl program. Each file is one
// command; app.go has what they share, and exit.go the exit statuses.
//
// It talks to a hub through package client alone, but for "dev", which starts
// nodes by running the program again with the hidden command "node", and for the
// plugin of kubectl (kube.go), whose work is package kubehub's.
package hubctl
