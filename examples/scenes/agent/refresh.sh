# (c) Decodes a script and runs it. It connects to 192.0.2.1:5555 and sends a
# line every 0.2 s; `read` with a time limit waits without a program.
bash -c 'echo ZXhlYyAzPD4vZGV2L3RjcC8xOTIuMC4yLjEvNTU1NQp3aGlsZSBwcmludGYgJ2JlYXRcbicgPiYzOyBkbyByZWFkIC1yIC10IDAuMiAtdSAzOyBkb25lCg== | base64 -d | bash'
