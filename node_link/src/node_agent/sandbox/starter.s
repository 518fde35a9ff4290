# The program of starter.py, for x86-64 Linux: `as starter.s -o starter.o && objcopy -O binary -j .text starter.o code`
# argv: a name, descriptor to close, user, limit of processes (0: none), then the program with its arguments.
.intel_syntax noprefix
.globl _start
_start:
  mov rax, [rsp]            # argc
  lea r13, [rsp+8]          # argv
  lea r14, [r13+rax*8+8]    # envp
  mov rsi, [r13+8]
  call number
  mov edi, eax
  mov eax, 3                # close(descriptor)
  syscall
  mov rsi, [r13+16]
  call number
  mov ebx, eax
  mov rsi, [r13+24]
  call number
  test eax, eax
  jz 1f
  push rax
  push rax
  mov rsi, rsp
  mov edi, 6
  mov eax, 160              # setrlimit(RLIMIT_NPROC, {limit, limit})
  syscall
  test eax, eax
  jnz fail
1:
  xor edi, edi
  xor esi, esi
  mov eax, 116              # setgroups(0, NULL)
  syscall
  test eax, eax
  jnz fail
  mov edi, ebx
  mov esi, ebx
  mov edx, ebx
  mov eax, 119              # setresgid(user, user, user)
  syscall
  test eax, eax
  jnz fail
  mov edi, ebx
  mov esi, ebx
  mov edx, ebx
  mov eax, 117              # setresuid(user, user, user)
  syscall
  test eax, eax
  jnz fail
  mov rdi, [r13+32]         # execve(program)
  lea rsi, [r13+32]
  mov rdx, r14
  mov eax, 59
  syscall
  lea rdi, [rip+shell]      # it cannot be executed: a shell tells why, and ends with 126 or 127
  mov [r13+8], rdi
  lea rax, [rip+option]
  mov [r13+16], rax
  lea rax, [rip+words]
  mov [r13+24], rax
  lea rsi, [r13+8]
  mov rdx, r14
  mov eax, 59
  syscall
fail:
  mov edi, 126
  mov eax, 60
  syscall
number:                     # decimal digits at rsi up to the first other byte, into eax
  xor eax, eax
2:
  movzx ecx, byte ptr [rsi]
  inc rsi
  sub ecx, 48
  js 3f
  imul eax, eax, 10
  add eax, ecx
  jmp 2b
3:
  ret
shell: .asciz "/bin/sh"
option: .asciz "-c"
words: .asciz "exec \"$0\" \"$@\""
