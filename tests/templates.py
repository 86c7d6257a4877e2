"""Short chat templates of our own, each with the traits of a family that prompts must cope with."""

#: ChatML, with a default system prompt: Qwen2.5, SmolLM2.
CHATML = """\
{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

#: Llama 3.1: writes BOS, trims, dates its system prompt.
LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- 'Today Date: ' + date_string + '\\n\\n' + system + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

#: Llama 2: brackets that are no tokens, BOS and EOS around every pair of turns, the system in the first.
LLAMA2 = """\
{%- set system = '' %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set content = system + message['content'] if loop.first else message['content'] %}
    {%- if message['role'] == 'user' %}{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- else %}{{- ' ' + content.strip() + ' ' + eos_token }}{%- endif %}
{%- endfor %}"""

#: Gemma: refuses a system role, calls the assistant model, trims.
GEMMA = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

#: The first Phi-3: drops a system role without a word.
PHI3 = """\
{{ bos_token }}{% for message in messages %}
    {%- if message.role == 'user' %}{{ '<|user|>\\n' + message.content + '<|end|>\\n<|assistant|>\\n' }}
    {%- elif message.role == 'assistant' %}{{ message.content + '<|end|>\\n' }}{% endif %}
{%- endfor %}"""

#: DeepSeek LLM: no markers but words; text and template touch.
DEEPSEEK_LLM = """\
{{ bos_token }}{% for message in messages %}
    {%- if message.role == 'user' %}{{ 'User: ' + message.content + '\\n\\n' }}
    {%- elif message.role == 'assistant' %}{{ 'Assistant: ' + message.content + eos_token }}
    {%- else %}{{ message.content + '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

#: Qwen3: thinks unless told not to; strips reasoning from history.
QWEN3 = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

#: DeepSeek R1: opens the reasoning itself, always.
DEEPSEEK_R1 = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}{%- set content = content.split('</think>')[-1] %}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n<think>\\n' }}"""

#: QwQ and the first R1: reasons without a sign of it in the prompt, strips reasoning from history.
STRIPS_HISTORY = DEEPSEEK_R1.replace("<think>\\n", "")

#: DeepSeek V3.1: off means a block closed at once, without its beginning.
DEEPSEEK_V31 = DEEPSEEK_R1.replace("<think>\\n'", "' + ('<think>' if thinking else '</think>')")

#: SmolLM3: the switch works in the system prompt.
SWITCH_IN_SYSTEM = "{% if not enable_thinking %}/no_think\n{% endif %}" + STRIPS_HISTORY
